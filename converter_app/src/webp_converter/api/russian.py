"""The Russian messages of the status page, by the English ones."""

from __future__ import annotations

MESSAGES = {
    # Above all
    "converter": "конвертер",
    "ok": "исправен",
    "degraded": "исправен не полностью",
    "failed": "не работает",
    "version {version}": "версия {version}",
    "release {release}": "выпуск {release}",
    "up {time}": "работает {time}",
    "Everything works": "Всё работает",
    "Works, but not all of it": "Работает, но не всё",
    "Can't work": "Не работает",
    "As of": "Данные на",
    "Refresh every {count} s": "Обновлять каждые {count} с",
    "Stop refreshing": "Не обновлять",
    "{age} ago": "{age} назад",
    "as of {age} ago": "данные получены {age} назад",
    "What is shown is {age} old.": "Показаны данные, полученные {age} назад.",
    "{month} {day}": "{day} {month}",
    # What became of an order
    "This browser may retry for an hour.": "Этот браузер может повторять преобразования в течение часа.",
    "Signed out.": "Вы вышли.",
    "No such letter is there any more.": "Такой записи больше нет.",
    # Numbers
    "At a glance": "Главное",
    "Saved": "Сэкономлено",
    "Converted": "Преобразовано",
    "{count} best as they are": "оставлены как есть: {count}",
    "Last hour": "За последний час",
    "last minute": "за последнюю минуту:",
    "In the queue": "В очереди",
    "nothing waits": "очередь пуста",
    "oldest {age}": "самое старое: {age}",
    "Given up": "Не удалось",
    "see below": "см. ниже",
    "none": "нет",
    # Parts
    "Parts": "Компоненты",
    "works": "работает",
    "does not work": "не работает",
    "has had nothing to do": "ещё не было работы",
    "at work": "выполняется",
    "Queue": "Очередь",
    "Redis that evicts nothing": "Redis, который ничего не вытесняет",
    "Statistics": "Статистика",
    "Redis that may forget": "Redis, которому разрешено вытеснять",
    "Watch": "Наблюдение",
    "of the resized pictures": "за уменьшенными картинками",
    "Workers": "Рабочие процессы",
    "that convert": "преобразуют картинки",
    "Disk": "Диск",
    "where variants are published": "куда публикуются варианты",
    "reached": "доступен",
    "has space, and can be published to": "место есть, запись возможна",
    "Originals": "Оригиналы",
    "of the mounted tree": "из смонтированного каталога",
    "none was asked for yet": "ещё не запрашивались",
    "read": "прочитаны",
    "Scan": "Сверка",
    "compares all with what is there": "сравнивает варианты с оригиналами",
    "running, or about to": "идёт или сейчас начнётся",
    "none since the start": "с момента запуска не было",
    ", not all could be queued": ", не всё удалось поставить в очередь",
    "Eviction": "Вытеснение",
    "of variants that are not read": "вариантов, которые никто не запрашивает",
    "; {size} could not be freed": "; не удалось освободить {size}",
    # The queue and file systems
    "High": "Высокий",
    "a visitor asked": "запросил посетитель",
    "Normal": "Обычный",
    "just written": "только что записаны",
    "Low": "Низкий",
    "found by a scan": "найдены при сверке",
    "Priority": "Приоритет",
    "Jobs": "Всего",
    "Under way": "В работе",
    "Oldest": "Ждёт",
    "Put off": "Отложены",
    "tried again later": "повтор позже",
    "in {time}": "через {time}",
    "{count} under way": "в работе: {count}",
    "File systems": "Файловые системы",
    "Share in use": "Занятая доля",
    "{share} in use, {size} left": "занято {share}, свободно {size}",
    # Dead letters
    "Dead letters": "Необработанные картинки",
    "No picture has been given up.": "Все картинки удалось обработать.",
    "Pictures that were given up after all tries. Visitors get their originals.": (
        "Картинки, которые не удалось обработать после всех попыток. Посетители получают оригиналы."
    ),
    "Token": "Токен",
    "Sign in": "Войти",
    "Sign out": "Выйти",
    "to retry: the content of": "чтобы повторять преобразования: содержимое",
    "on the host": "на сервере",
    "This browser may retry.": "Этот браузер может повторять преобразования.",
    "Retry": "Повторить",
    "Retry all": "Повторить все",
    "{count} more:": "И ещё {count}:",
    # Savings
    "Saved bytes per day": "Экономия по дням",
    "Bars of {days} days, the highest {size}; the table has all numbers": (
        "Столбцы за {days} дн., самый высокий: {size}; все числа есть в таблице"
    ),
    "{day}: {size} saved, {count} converted": "{day}: сэкономлено {size}, преобразовано: {count}",
    "{size} in {days} days: what the variants made on a day are smaller than their originals. A picture that "
    "is converted again counts again here; above it counts once.": (
        "{size} за {days} дн.: на столько варианты, созданные за день, меньше своих оригиналов. Картинка, "
        "преобразованная повторно, считается здесь ещё раз; в числах вверху страницы она учтена один раз."
    ),
    "As a table": "Таблицей",
    "Day (UTC)": "День (UTC)",
    "Share": "Доля",
    "Nothing was converted in these days.": "За эти дни ничего не преобразовано.",
    # Conversions
    "Last conversions": "Последние преобразования",
    "None since the daemon started.": "С момента запуска ещё не было.",
    "lossless": "без потерь",
    "quality {quality}": "качество {quality}",
    "not measured": "не измерено",
    "{count} ms": "{count} мс",
    "Before: {name}": "До: {name}",
    "After: {name}": "После: {name}",
    "Original": "Оригинал",
    "not shown here": "здесь не показывается",
    "The same for programs:": "То же для программ:",
}

PLURALS = {
    "{count} picture is tried again.": (
        "{count} картинка будет обработана снова.",
        "{count} картинки будут обработаны снова.",
        "{count} картинок будут обработаны снова.",
    ),
    "{count} directory": ("{count} каталог", "{count} каталога", "{count} каталогов"),
    "{count} picture under way": (
        "{count} картинка в работе",
        "{count} картинки в работе",
        "{count} картинок в работе",
    ),
    "{count} original in {time}, {queued} queued": (
        "{count} оригинал за {time}, поставлено в очередь: {queued}",
        "{count} оригинала за {time}, поставлено в очередь: {queued}",
        "{count} оригиналов за {time}, поставлено в очередь: {queued}",
    ),
    "{count} variant, {size}": (
        "{count} вариант, {size}",
        "{count} варианта, {size}",
        "{count} вариантов, {size}",
    ),
    "{count} try": ("{count} попытка", "{count} попытки", "{count} попыток"),
}

REASONS = {
    "starting": "запускается",
    # Redis
    "Redis is away": "Redis недоступен",
    "Redis is away: {}": "Redis недоступен: {}",
    "Redis can't answer: {}": "Redis не может ответить: {}",
    "Redis is out of memory": "у Redis закончилась память",
    "no answer after {} s": "нет ответа за {} с",
    "Error {} connecting to {}. {}.": "не удалось подключиться к {1}: {2} (ошибка {0})",
    "Timeout connecting to server": "истекло время подключения",
    "Timeout reading from socket": "истекло время ожидания ответа",
    "Timeout reading from {}": "истекло время ожидания ответа от {}",
    "Connection closed by server.": "сервер закрыл соединение",
    # The tree that is watched, disks
    "no inotify watches left: raise fs.inotify.max_user_watches": (
        "закончились наблюдения inotify: увеличьте fs.inotify.max_user_watches"
    ),
    "{} MiB free, {} MiB wanted": "свободно {} МиБ, требуется {} МиБ",
    "temporary directory {}: {}": "временный каталог {}: {}",
    "{} and {} must share a file system": "{} и {} должны находиться в одной файловой системе",
    "store.owner, store.group: {}": "store.owner, store.group: {}",
    "{} is missing": "{} отсутствует",
    # Workers
    "workers don't start: {}": "рабочие процессы не запускаются: {}",
    "not done after {} s": "не выполнено за {} с",
    "worker crashed ({})": "рабочий процесс аварийно завершился ({})",
    "the worker pool has failed": "рабочие процессы не работают",
    "exit code {}": "код завершения {}",
    "the {} decoder is broken: {}": "декодер {} неисправен: {}",
    # Originals
    "away a moment ago": "только что были недоступны",
    "{}: not read after {} s": "{}: не прочитано за {} с",
    "{}: cut off after {} of {} bytes": "{}: оборвано после {} из {} байт",
    # Orders
    "api.token_file {}: fewer than {} characters": "api.token_file {}: меньше {} символов",
    "api.token_file {}: {}": "api.token_file {}: {}",
    "the token is wrong": "токен неверен",
    "a token is needed": "нужен токен",
    "this browser has been signed out: the token is needed again": (
        "вход в этом браузере больше не действует: нужен токен"
    ),
    "this form was not sent from the status page itself": "эта форма отправлена не со страницы состояния",
    "this is no form": "это не форма",
    "more than {} bytes of form": "форма больше {} байт",
    "no dead letter has such an id": "записи с таким идентификатором нет",
    # What the kernel says
    "[Errno {}] {}": "{1} (ошибка {0})",
    "Connection refused": "в соединении отказано",
    "Connection reset by peer": "соединение сброшено другой стороной",
    "Input/output error": "ошибка ввода-вывода",
    "Name or service not known": "имя не найдено",
    "Network is unreachable": "сеть недоступна",
    "No route to host": "нет маршрута до сервера",
    "No space left on device": "на устройстве не осталось места",
    "No such file or directory": "нет такого файла или каталога",
    "Not a directory": "это не каталог",
    "Permission denied": "доступ запрещён",
    "Read-only file system": "файловая система доступна только для чтения",
    "Resource temporarily unavailable": "ресурс временно недоступен",
    "Cannot allocate memory": "не удалось выделить память",
    "Too many open files": "слишком много открытых файлов",
    "timed out": "истекло время ожидания",
    # A path, and what is wrong with it
    "/{}: {}": "/{}: {}",
}

UNITS = {
    "bytes": "байт",
    "KiB": "КиБ",
    "MiB": "МиБ",
    "GiB": "ГиБ",
    "TiB": "ТиБ",
    "s": "с",
    "min": "мин",
    "h": "ч",
    "d": "дн.",
    "days": "дн.",
}

MONTHS = ("янв", "фев", "мар", "апр", "мая", "июн", "июл", "авг", "сен", "окт", "ноя", "дек")


def plural(count: int) -> int:
    """Which of the three forms a count takes: 1 картинка, 2 картинки, 5 картинок."""
    if count % 10 == 1 and count % 100 != 11:
        return 0
    return 1 if count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14) else 2
