/* A stub of VFIO's type1 for LD_PRELOAD, to measure the cost of a join without the kernel's part.
   It returns an empty memfd for open() below /dev/vfio/, and success for the ioctls of a container and a group. It
   omits: the system call itself, pinning, the IOMMU, every check of the arguments, the limits of locked memory and of
   mappings (dma_entry_limit), devices (VFIO_GROUP_GET_DEVICE_FD fails), and dirty pages. No DMA is possible with it,
   and no test may use it in place of VFIO. All other files and ioctls go to the kernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PREFIX "/dev/vfio/"
#define DESCRIPTORS 65536
#define PAGE_SIZES (1ull << 12 | 1ull << 21 | 1ull << 30)
#define LAST_IOVA ((1ull << 48) - 1)

static char is_stub[DESCRIPTORS];

static int open_file(const char *path, int flags, mode_t mode) {
  if (strncmp(path, PREFIX, strlen(PREFIX)) != 0) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  int fd = (int)syscall(SYS_memfd_create, "no-ioctl", 1u /* MFD_CLOEXEC */);
  if (fd >= 0 && fd < DESCRIPTORS) is_stub[fd] = 1;
  return fd;
}

static mode_t mode_of(int flags, va_list rest) {
  return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = mode_of(flags, rest);
  va_end(rest);
  return open_file(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = mode_of(flags, rest);
  va_end(rest);
  return open_file(path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
  if (fd >= 0 && fd < DESCRIPTORS) is_stub[fd] = 0;
  return (int)syscall(SYS_close, fd);
}

struct iova_range_info {
  struct vfio_iommu_type1_info info;
  struct vfio_iommu_type1_info_cap_iova_range cap;
  struct vfio_iova_range range;
};

static void get_info(struct vfio_iommu_type1_info *info) {
  uint32_t room = info->argsz;
  uint32_t cap_offset = (uint32_t)offsetof(struct iova_range_info, cap);
  struct iova_range_info all = {
      .info = {.argsz = (uint32_t)sizeof all,
               .flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
               .iova_pgsizes = PAGE_SIZES,
               .cap_offset = room < sizeof all ? 0 : cap_offset},
      .cap = {.header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1}, .nr_iovas = 1},
      .range = {.start = 0, .end = LAST_IOVA},
  };
  memcpy(info, &all, room < sizeof all ? room : sizeof all);
}

int ioctl(int fd, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  if (fd < 0 || fd >= DESCRIPTORS || !is_stub[fd]) return (int)syscall(SYS_ioctl, fd, request, argument);
  switch (request) {
    case VFIO_CHECK_EXTENSION:
      return 1;
    case VFIO_GROUP_GET_STATUS:
      ((struct vfio_group_status *)argument)->flags = VFIO_GROUP_FLAGS_VIABLE;
      return 0;
    case VFIO_IOMMU_GET_INFO:
      get_info(argument);
      return 0;
    case VFIO_GET_API_VERSION:
    case VFIO_SET_IOMMU:
    case VFIO_GROUP_SET_CONTAINER:
    case VFIO_GROUP_UNSET_CONTAINER:
    case VFIO_IOMMU_MAP_DMA:
    case VFIO_IOMMU_UNMAP_DMA:
      return 0;
    default:
      errno = ENOTTY;
      return -1;
  }
}
