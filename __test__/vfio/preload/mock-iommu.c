// Puts devices behind the mock IOMMU of the kernel's tests (CONFIG_IOMMUFD_TEST). A program under test is started with
// this library (LD_PRELOAD), and names the devices in MOCK_IOMMU (../support/mock-iommu.ts).
//
// A device of VFIO stays behind its own IOMMU. So for each, this library creates a mock device, and redirects three
// ioctls to it: bind, attach and detach. The other calls reach the kernel unchanged, and do the same as for other
// devices. The real device cannot do DMA, because it is not attached.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// include/uapi/linux/vfio.h
#define BIND _IO(';', 118)
#define ATTACH _IO(';', 119)
#define DETACH _IO(';', 120)
struct bind {
	__u32 argsz, flags;
	__s32 iommufd;
	__u32 out_devid;
};
struct attach {
	__u32 argsz, flags, pt_id;
};

// include/uapi/linux/iommufd.h
#define DESTROY _IO(';', 0x80)
#define IOAS_ALLOC _IO(';', 0x81)
struct destroy {
	__u32 size, id;
};
struct ioas_alloc {
	__u32 size, flags, out_ioas_id;
};

// drivers/iommu/iommufd/iommufd_test.h
#define TEST _IO(';', 0xa0)
#define OP_MOCK_DOMAIN_FLAGS 12
struct test {
	__u32 size, op, id, reserved;
	union {
		struct {
			__u32 out_stdev_id, out_hwpt_id, out_idev_id, dev_flags;
		} mock_domain_flags;
		__u64 largest[6];
	};
	__u32 last;
};

// A device behind the mock IOMMU. A mock device is attached for as long as it exists. So one in an empty address space
// provides the id for HWPT_ALLOC and GET_HW_INFO, and another one exists while the device is attached.
struct mock {
	char name[16]; // of the file of the device, "vfio3"
	__u32 flags; // MOCK_FLAGS_DEVICE_…
	int device, iommufd; // descriptors; 0: not bound
	__u32 bound, empty_ioas, attached; // ids; 0: not attached
};

#define MOST 4
static struct mock mocks[MOST];
static size_t count;
// For the program: the page table to which each device is attached; 0: to none.
static volatile uint32_t *tables;
static int (*next_ioctl)(int, unsigned long, void *);
static int (*next_close)(int);
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP; // the next library may close files

// MOCK_IOMMU: "FILE vfio3=0 vfio4=1", the shared file and the devices with their flags.
__attribute__((constructor)) static void start(void)
{
	next_ioctl = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
	const char *setting = getenv("MOCK_IOMMU");

	if (setting == NULL)
		return;
	char *words = strdup(setting), *rest = NULL;
	int fd = open(strtok_r(words, " ", &rest), O_RDWR | O_CLOEXEC);

	for (char *word; count < MOST && (word = strtok_r(NULL, " ", &rest)) != NULL; count++)
		if (sscanf(word, "%15[^=]=%u", mocks[count].name, &mocks[count].flags) != 2)
			abort();
	void *shared = mmap(NULL, MOST * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (shared == MAP_FAILED)
		abort();
	tables = shared;
	close(fd);
	free(words);
}

static struct mock *mock_named(int fd)
{
	char link[32], path[PATH_MAX];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof(path) - 1);

	if (length <= 0)
		return NULL;
	path[length] = '\0';
	const char *name = strrchr(path, '/');

	for (size_t index = 0; name != NULL && index < count; index++)
		if (strcmp(name + 1, mocks[index].name) == 0)
			return &mocks[index];
	return NULL;
}

static struct mock *mock_of(int fd)
{
	for (size_t index = 0; index < count; index++)
		if (mocks[index].iommufd != 0 && mocks[index].device == fd)
			return &mocks[index];
	return NULL;
}

static void destroy(int iommufd, __u32 id)
{
	struct destroy request = { .size = sizeof(request), .id = id };

	// The first attempt may fail on purpose (fail-nth.c).
	if (next_ioctl(iommufd, DESTROY, &request) != 0 && next_ioctl(iommufd, DESTROY, &request) != 0) {
		perror("mock-iommu: destroy");
		abort();
	}
}

// Creates a mock device that is attached to an address space or page table. ENOTTY: a kernel without them.
static int create(struct mock *mock, int iommufd, __u32 table, struct test *test)
{
	*test = (struct test){ .size = sizeof(*test), .op = OP_MOCK_DOMAIN_FLAGS, .id = table };
	test->mock_domain_flags.dev_flags = mock->flags;
	return next_ioctl(iommufd, TEST, test);
}

// Binds the device itself as usual, which opens it, and returns the id of a new mock device.
static int bind_mock(struct mock *mock, int fd, struct bind *bind)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	struct test test;
	int result = next_ioctl(fd, BIND, bind);

	if (result != 0)
		return result;
	result = next_ioctl(bind->iommufd, IOAS_ALLOC, &alloc);
	if (result != 0)
		return result;
	result = create(mock, bind->iommufd, alloc.out_ioas_id, &test);
	if (result != 0) {
		int error = errno;

		destroy(bind->iommufd, alloc.out_ioas_id);
		errno = error;
		return result;
	}
	mock->iommufd = fcntl(bind->iommufd, F_DUPFD_CLOEXEC, 0);
	mock->device = fd;
	mock->empty_ioas = alloc.out_ioas_id;
	mock->bound = test.mock_domain_flags.out_stdev_id;
	bind->out_devid = test.mock_domain_flags.out_idev_id;
	return 0;
}

static int attach_mock(struct mock *mock, __u32 table)
{
	struct test test;
	int result = create(mock, mock->iommufd, table, &test);

	if (result == 0) {
		mock->attached = test.mock_domain_flags.out_stdev_id;
		tables[mock - mocks] = test.mock_domain_flags.out_hwpt_id;
	}
	return result;
}

static int detach_mock(struct mock *mock)
{
	if (mock->attached != 0)
		destroy(mock->iommufd, mock->attached);
	mock->attached = 0;
	tables[mock - mocks] = 0;
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;

	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);

	va_end(arguments);
	if (request != BIND && request != ATTACH && request != DETACH)
		return next_ioctl(fd, request, argument);
	pthread_mutex_lock(&mutex);
	struct mock *mock = request == BIND ? mock_named(fd) : mock_of(fd);
	int result;

	if (mock == NULL)
		result = next_ioctl(fd, request, argument);
	else if (request == BIND)
		result = bind_mock(mock, fd, argument);
	else if (request == ATTACH)
		result = attach_mock(mock, ((struct attach *)argument)->pt_id);
	else
		result = detach_mock(mock);
	pthread_mutex_unlock(&mutex);
	return result;
}

// The end of a device's file detaches it: here, its mock devices end before.
int close(int fd)
{
	// Before the constructor, that of another library may close a file.
	if (next_close == NULL)
		next_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
	if (count > 0) {
		pthread_mutex_lock(&mutex);
		struct mock *mock = mock_of(fd);

		if (mock != NULL) {
			detach_mock(mock);
			destroy(mock->iommufd, mock->bound);
			destroy(mock->iommufd, mock->empty_ioas);
			next_close(mock->iommufd);
			mock->iommufd = 0;
		}
		pthread_mutex_unlock(&mutex);
	}
	return next_close(fd);
}
