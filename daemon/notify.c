/*
 * sd_notify, see notify.h.
 */
#include "daemon/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"

int weft_notify_open(struct weft_notify *n, weft_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = getenv("NOTIFY_SOCKET");
    n->fd = -1;
    if (name == NULL || name[0] == '\0')
        return 0;
    size_t len = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || len < 2 || len >= sizeof address.sun_path)
        return weft_fail(err, WEFT_EIO, "NOTIFY_SOCKET='%s': expected a path or '@' and a name",
                         name);
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] =
            '\0'; /* an abstract name is as long as its bytes, without a 0 behind */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return weft_fail_errno(err, errno, "socket");
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] != '@'));
    if (connect(fd, (const struct sockaddr *)&address, size) < 0) {
        int errnum = errno;
        close(fd);
        return weft_fail_errno(err, errnum, "NOTIFY_SOCKET='%s'", name);
    }
    n->fd = fd;
    return 0;
}

void weft_notify(struct weft_notify *n, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (n->fd < 0)
        return;
    va_start(args, fmt);
    int len = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (len > 0)
        (void)!send(n->fd, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1,
                    MSG_NOSIGNAL);
}

void weft_notify_close(struct weft_notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}

uint64_t weft_notify_watchdog_us(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t us, id;
    if (usec == NULL || weft_parse_u64(usec, 1, UINT64_MAX, &us, NULL) < 0)
        return 0;
    if (pid != NULL &&
        (weft_parse_u64(pid, 1, UINT64_MAX, &id, NULL) < 0 || id != (uint64_t)getpid()))
        return 0;
    return us;
}
