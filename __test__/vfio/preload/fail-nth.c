// Makes an allocation of the kernel fail in an ioctl of VFIO or iommufd. A program under test is started with this
// library (LD_PRELOAD), and controls it by the file of FAIL_NTH (../support/fail-nth.ts).
//
// The kernel counts the allocations of a thread in /proc/thread-self/fail-nth, and lets the one fail at which the count
// reaches 0 (Linux, Documentation/fault-injection/fault-injection.rst). This library arms a thread only for its ioctls,
// and continues the count in the next ioctl, of whichever thread.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// The type of the ioctls of VFIO and of iommufd (include/uapi/linux/vfio.h, iommufd.h).
#define TYPE ';'

struct control {
	uint32_t remaining; // allocations up to and including the one that fails; 0: none fails
	uint32_t number; // of the ioctl in which one failed
	int32_t result; // of that ioctl: 0 or more, or the negative errno
	uint32_t excluded; // the number of an ioctl in which none fails; 0: all can
};

static volatile struct control *control;
static int (*next_ioctl)(int, unsigned long, void *);
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("FAIL_NTH");
	int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);

	next_ioctl = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
	if (fd < 0)
		return;
	void *shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	if (shared != MAP_FAILED)
		control = shared;
}

static int ioctl_with_failure(int fd, unsigned long request, void *argument)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", control->remaining);
	int nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);

	if (nth < 0 || write(nth, text, (size_t)length) != length)
		abort();
	int result = next_ioctl(fd, request, argument);
	int error = errno;
	ssize_t got = pread(nth, text, sizeof(text) - 1, 0);

	if (got <= 0 || pwrite(nth, "0", 1, 0) != 1)
		abort();
	close(nth);
	text[got] = '\0';
	control->remaining = (uint32_t)strtoul(text, NULL, 10);
	if (control->remaining == 0) {
		control->number = (uint32_t)_IOC_NR(request);
		control->result = result < 0 ? -error : result;
	}
	errno = error;
	return result;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;

	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);

	va_end(arguments);
	if (control == NULL || control->remaining == 0 || _IOC_TYPE(request) != TYPE ||
	    _IOC_NR(request) == control->excluded)
		return next_ioctl(fd, request, argument);
	pthread_mutex_lock(&mutex);
	int result = control->remaining == 0 ? next_ioctl(fd, request, argument)
					     : ioctl_with_failure(fd, request, argument);

	pthread_mutex_unlock(&mutex);
	return result;
}
