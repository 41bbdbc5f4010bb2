"""What the shared pages say in Russian."""

from __future__ import annotations

from web_kit.language import Table

TABLE = Table(
    {
        # All pages
        "To the content": "К содержанию",
        "Sections": "Разделы",
        "Log out": "Выйти",
        "Log in": "Войти",
        "That did not work": "Не получилось",
        "To the first page": "На главную",
        "Save": "Сохранить",
        "Search": "Искать",
        "Name": "Имя",
        "none": "нет",
        "saved": "сохранено",
        "logged out": "сеанс завершён",
        "password changed": "пароль изменён",
        "authenticator changed": "настройки аутентификатора изменены",
        "token ended": "токен отозван",
        "{age} ago": "{age} назад",
        "B": "Б",
        "kB": "кБ",
        "MB": "МБ",
        "GB": "ГБ",
        "TB": "ТБ",
        "s": "с",
        "min": "мин",
        "h": "ч",
        "d": "дн.",
        # Roles
        "Role": "Роль",
        "viewer": "наблюдатель",
        "operator": "оператор",
        "approver": "утверждающий",
        "admin": "администратор",
        "looks at everything but jobs and the audit log": "видит всё, кроме заданий и журнала действий",
        "also starts what changes nothing, silences alerts, asks for changes": (
            "а также запускает проверки, заглушает оповещения и запрашивает изменения"
        ),
        "also approves the changes that others ask for": "а также утверждает изменения, запрошенные другими",
        "also manages users, and approves own changes": (
            "а также управляет пользователями и утверждает собственные изменения"
        ),
        # Logging in
        "Password": "Пароль",
        "Code": "Код",
        "of the authenticator, if you use one": "из аутентификатора, если он включён",
        "Set a password": "Задать пароль",
        "Account {name}, role {role}.": "Учётная запись {name}, роль: {role}.",
        "New password": "Новый пароль",
        "At least {least} characters.": "Не короче {least} символов.",
        "The same again": "Ещё раз",
        "Set it and log in": "Сохранить и войти",
        # One's own account
        "Your account": "Ваша учётная запись",
        "The token": "Токен",
        "It is shown only now.": "Он показан только сейчас.",
        "Password of now": "Текущий пароль",
        "Change it": "Изменить",
        "Other browsers are logged out.": "В остальных браузерах сеанс завершится.",
        "Authenticator": "Аутентификатор",
        "Each login asks for a code.": "При каждом входе запрашивается код.",
        "With an application on your telephone, a stolen password is not enough.": (
            "С приложением на телефоне украденного пароля недостаточно."
        ),
        "Scan this, or type the secret:": "Отсканируйте код или введите секрет:",
        "QR code of the secret below": "QR-код секрета, указанного ниже",
        "Code that it shows": "Код из приложения",
        "Remove it": "Отключить",
        "Use it": "Включить",
        "Language": "Язык",
        "Of all pages": "На всех страницах",
        "as the browser asks": "как в браузере",
        "Where you are logged in": "Активные сеансы",
        "this browser": "этот браузер",
        "last used": "активность:",
        "Tokens for programs": "Токены для программ",
        "good until {time}": "действует до {time}",
        "End it": "Отозвать",
        "Days": "Дней",
        "For": "Для чего",
        "Make a token": "Создать токен",
        # Users
        "Users": "Пользователи",
        "The link": "Ссылка",
        "Give it to whom it is for. It is good once, for a day, and shown only now.": (
            "Передайте её тому, для кого она создана. Она действует один раз, в течение суток, "
            "и показана только сейчас."
        ),
        "disabled": "отключён",
        "with an authenticator": "аутентификатор включён",
        "without an authenticator": "без аутентификатора",
        "Log out everywhere": "Завершить все сеансы",
        "Invite somebody": "Пригласить",
        "has an account, and needs a new password": "учётная запись есть, нужен новый пароль",
        "Make a link": "Создать ссылку",
        # The audit log
        "Audit log": "Журнал действий",
        "Entry {number} is not as it was written, or is missing.": "Запись {number} изменена или удалена.",
        "Last hash:": "Последний хеш:",
        "Verify the chain": "Проверить целостность",
        "Export": "Экспорт",
        "No.": "№",
        "When": "Когда",
        "Who": "Кто",
        "What": "Что",
        "Result": "Результат",
        "From": "Откуда",
        "ok": "выполнено",
        "refused": "отказано",
        "failed": "ошибка",
        "nothing found": "ничего не найдено",
        "Older ones": "Более ранние",
        # What is refused
        "a password has {least} to {most} characters": "длина пароля: от {least} до {most} символов",
        "the password is too easy to guess": "пароль слишком легко угадать",
        "a name has 1 to 64 of a-z, 0-9 and . _ @ -": "имя: от 1 до 64 символов a-z, 0-9 и . _ @ -",
        "{name} is there already": "учётная запись {name} уже есть",
        "there is no account {name}": "учётной записи {name} нет",
        "this link was used, or is over; ask for another one": (
            "ссылка уже использована или устарела; попросите новую"
        ),
        "name, password or code are wrong": "неверное имя, пароль или код",
        "too many tries; the next one in {minutes} min": (
            "слишком много попыток; следующая через {minutes} мин"
        ),
        "the password is wrong": "неверный пароль",
        "the code is wrong; is the clock of the telephone right?": (
            "неверный код; правильно ли идут часы телефона?"
        ),
        "a token has a name of 1 to 64 characters": "имя токена: от 1 до 64 символов",
        "choose what the token is for": "выберите, для чего токен",
        "a token is good for 1 to {days} days": "срок действия токена: от 1 до {days} дней",
        "there is no such account": "такой учётной записи нет",
        "one admin must be left": "должен остаться хотя бы один администратор",
        "log in first": "сначала войдите",
        "this form is out of date; open the page again": "форма устарела; откройте страницу заново",
        "your role does not allow that": "ваша роль этого не позволяет",
        "this is no form": "это не форма",
        "there is no such page": "такой страницы нет",
        "that can't be done here": "здесь этого сделать нельзя",
        "the two passwords differ": "пароли не совпадают",
        "there is no such role": "такой роли нет",
    },
    {
        "{count} entry, as it was written.": (
            "{count} запись, не изменена.",
            "{count} записи, ни одна не изменена.",
            "{count} записей, ни одна не изменена.",
        ),
    },
)
