"""The picture that monitoring asks for, on the CDN host. Its interpreter there is the converter's."""
