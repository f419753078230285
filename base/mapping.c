/*
 * A file mapped read-only, for the GGUF reader and for cutting shards.
 * Invariant: an open mapping covers the whole file as it was when opened. A file that someone cuts
 * short afterwards raises SIGBUS on access, as with every mapping; weft never writes model files.
 */
#include "base/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *file_kind(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

int weft_mapping_open(const char *path, struct weft_mapping *ret, weft_err *err)
{
    int r = 0;
    struct stat st;
    void *data;
    const char *slash = strrchr(path, '/');

    /* O_NONBLOCK: opening a pipe must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return weft_fail(err, WEFT_EMODEL, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0) {
        r = weft_fail(err, WEFT_EMODEL, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        r = weft_fail(err, WEFT_EMODEL, "%s: found %s, expected a regular file", path,
                      file_kind(st.st_mode));
        goto out;
    }
    if (st.st_size == 0) {
        r = weft_fail(err, WEFT_EMODEL, "%s: the file is empty; download it again", path);
        goto out;
    }
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        r = weft_fail(err, WEFT_EMODEL, "%s: cannot be mapped: %s", path, strerror(errno));
        goto out;
    }
    *ret = (struct weft_mapping){
        .data = data,
        .size = (uint64_t)st.st_size,
        .mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec,
        .inode = st.st_ino,
        .device = st.st_dev,
    };
    snprintf(ret->name, sizeof ret->name, "%s", slash != NULL ? slash + 1 : path);
out:
    close(fd);
    return r;
}

void weft_mapping_close(struct weft_mapping *m)
{
    if (m->data != NULL)
        munmap((void *)m->data, (size_t)m->size);
    *m = (struct weft_mapping){0};
}

void weft_mapping_fetch(const struct weft_mapping *m, uint64_t offset, uint64_t size)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (offset >= m->size)
        return;
    if (size > m->size - offset)
        size = m->size - offset;
    const uint64_t before = offset % page; /* the system wants the start of a page */
    (void)madvise((void *)(m->data + (offset - before)), (size_t)(size + before), MADV_WILLNEED);
}
