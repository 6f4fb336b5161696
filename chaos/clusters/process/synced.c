/* Notes how much of each file is on the disk for certain, so that a power loss can be imitated.
 *
 * A killed process loses nothing that it wrote: the kernel still has it. A host that loses its power
 * keeps what fsync or fdatasync had returned for, and may lose the rest. With this library in
 * LD_PRELOAD, each call that succeeds writes the size that the file had before the call into
 * $DDQ_SYNCED_FOLDER, as a file with the name of the inode. What is written while the call runs may
 * reach the disk as well, but nobody was promised that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(const struct stat *before) {
    const char *folder = getenv("DDQ_SYNCED_FOLDER");
    char path[4096], text[32];
    if (folder == NULL || !S_ISREG(before->st_mode)) return;
    snprintf(path, sizeof path, "%s/%llu", folder, (unsigned long long)before->st_ino);
    int file = open(path, O_WRONLY | O_CREAT, 0644);
    if (file < 0) return;
    /* Always of the same length, so that one write replaces the number before. */
    int length = snprintf(text, sizeof text, "%020lld\n", (long long)before->st_size);
    if (pwrite(file, text, length, 0) != length) unlink(path);
    close(file);
}

static int synced(int file, const char *name) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    struct stat before;
    int known = fstat(file, &before) == 0;
    int result = real(file);
    if (result == 0 && known) note(&before);
    return result;
}

int fsync(int file) { return synced(file, "fsync"); }
int fdatasync(int file) { return synced(file, "fdatasync"); }
