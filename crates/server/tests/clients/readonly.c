// Makes a folder read-only for a process while it runs, files that are open included, as a disk becomes that the system remounts
// after an error. `mount` refuses that while a file is open for writing. Compiled and preloaded by soak.py.
//
// FOLDER is the folder; while SWITCH exists, calls that would change anything below it fail with EROFS.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_below(const char *path) {
    const char *folder = getenv("FOLDER"), *file = getenv("SWITCH");
    return folder && file && strncmp(path, folder, strlen(folder)) == 0 && access(file, F_OK) == 0;
}

static int is_open_below(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))
#define REFUSE(condition) \
    if (condition) { errno = EROFS; return -1; }

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    REFUSE((flags & (O_WRONLY | O_RDWR | O_CREAT)) && is_below(path))
    return NEXT(int (*)(const char *, int, mode_t), name)(path, flags, mode);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return opened(#name, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t length) {
    REFUSE(is_open_below(fd))
    return NEXT(ssize_t (*)(int, const void *, size_t), "write")(fd, data, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REFUSE(is_open_below(fd))
    return NEXT(ssize_t (*)(int, const struct iovec *, int), "writev")(fd, parts, count);
}

int ftruncate64(int fd, off64_t length) {
    REFUSE(is_open_below(fd))
    return NEXT(int (*)(int, off64_t), "ftruncate64")(fd, length);
}

int rename(const char *from, const char *to) {
    REFUSE(is_below(from) || is_below(to))
    return NEXT(int (*)(const char *, const char *), "rename")(from, to);
}

int mkdir(const char *path, mode_t mode) {
    REFUSE(is_below(path))
    return NEXT(int (*)(const char *, mode_t), "mkdir")(path, mode);
}

int unlink(const char *path) {
    REFUSE(is_below(path))
    return NEXT(int (*)(const char *), "unlink")(path);
}
