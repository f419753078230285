/*
 * Addresses of connections, as people write them: "host:port", "[v6]:port", "host", "ipc:///path".
 * Pure; any thread.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "proto/io_uv.h"

#define HOST_MAX 253     /* of a DNS name */
#define IPC_PATH_MAX 107 /* sun_path without its 0 */

static int parse_ipc(const char *text, char *buf, size_t n, weft_err *err)
{
    const char *path = text + strlen("ipc://");
    if (path[0] != '/' || path[1] == '\0')
        return weft_fail(err, WEFT_ECONFIG, "'%s': not an address, expected ipc:///path", text);
    if (strlen(path) > IPC_PATH_MAX)
        return weft_fail(err, WEFT_ECONFIG, "'%s': a socket's path has at most %d bytes", text,
                         IPC_PATH_MAX);
    if ((size_t)snprintf(buf, n, "%s", text) >= n)
        return weft_fail(err, WEFT_ECONFIG, "'%s': address too long", text);
    return 0;
}

/* Letters, digits, '-', '_' and '.', neither first nor last a '-'; resolvers know the rest. */
static bool host_valid(const char *host, size_t n)
{
    if (n == 0 || n > HOST_MAX || host[0] == '-' || host[n - 1] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)host[i]) && strchr("-_.", host[i]) == NULL)
            return false;
    return true;
}

static bool v6_valid(const char *host, size_t n)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (n >= sizeof text)
        return false;
    memcpy(text, host, n);
    text[n] = '\0';
    return inet_pton(AF_INET6, text, &addr) == 1;
}

int weft_address_parse(const char *text, uint16_t default_port, char *buf, size_t n, weft_err *err)
{
    static const char expected[] = "expected host:port, [v6]:port or ipc:///path";
    if (strncmp(text, "ipc://", strlen("ipc://")) == 0)
        return parse_ipc(text, buf, n, err);
    const char *host = text, *rest;
    size_t host_size;
    const bool v6 = text[0] == '[';
    if (v6) {
        host = text + 1;
        host_size = strcspn(host, "]");
        if (host[host_size] != ']' || !v6_valid(host, host_size))
            return weft_fail(err, WEFT_ECONFIG, "'%s': not an address, %s", text, expected);
        rest = host + host_size + 1;
    } else {
        host_size = strcspn(host, ":");
        rest = host + host_size;
        if (strchr(rest, ':') != strrchr(rest, ':'))
            return weft_fail(err, WEFT_ECONFIG,
                             "'%s': not an address, write an IPv6 address in brackets: [%s]:port",
                             text, v6_valid(text, strlen(text)) ? text : "v6");
        if (!host_valid(host, host_size))
            return weft_fail(err, WEFT_ECONFIG, "'%s': not an address, %s", text, expected);
    }
    uint64_t port = default_port;
    if (rest[0] == ':') {
        if (weft_parse_u64(rest + 1, 0, UINT16_MAX, &port, NULL) < 0)
            return weft_fail(err, WEFT_ECONFIG, "'%s': not a port: '%s', expected 0 to 65535", text,
                             rest + 1);
    } else if (rest[0] != '\0') {
        return weft_fail(err, WEFT_ECONFIG, "'%s': not an address, %s", text, expected);
    }
    const int written =
        snprintf(buf, n, v6 ? "[%.*s]:%u" : "%.*s:%u", (int)host_size, host, (unsigned)port);
    if (written < 0 || (size_t)written >= n)
        return weft_fail(err, WEFT_ECONFIG, "'%s': address too long", text);
    return 0;
}
