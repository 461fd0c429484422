/* The few calls of the host on which all else is built. */
#include "host.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <time.h>

long dwc_ioctl(int fd, unsigned long request, void *argument)
{
	long result = ioctl(fd, request, argument);
	return result < 0 ? -errno : result;
}

uint64_t dwc_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
