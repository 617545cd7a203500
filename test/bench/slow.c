/*
 * slow - a slow disk: LD_PRELOAD it into a program whose fsync() and fdatasync()
 * shall take SLOW_US microseconds longer
 *
 * The real call comes first, so that what it promises is kept. Only the thread
 * that waits for the flush sleeps, as with a disk that is far away.
 */
#define _GNU_SOURCE 1

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int
slowly(const char *name, int fd)
{
	int (*real)(int), status, error;
	const char *us = getenv("SLOW_US");
	long n = us ? atol(us) : 0;
	struct timespec t;

	*(void **)&real = dlsym(RTLD_NEXT, name);
	status = real(fd);
	error = errno;
	t.tv_sec = n / 1000000;
	t.tv_nsec = n % 1000000 * 1000;
	while (nanosleep(&t, &t) == -1 && errno == EINTR)
		;
	errno = error;
	return status;
}

int
fsync(int fd)
{
	return slowly("fsync", fd);
}

int
fdatasync(int fd)
{
	return slowly("fdatasync", fd);
}
