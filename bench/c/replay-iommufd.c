/* The yardstick for a replay into an address space of iommufd: the same ioctls in a loop.
   replay-iommufd DEVICE file|memory MAPPINGS ROUNDS: a line of nanoseconds for each round. DEVICE is /dev/vfio/devices/vfioN.
   Systems' headers are older than iommufd: the few structures stand here (include/uapi/linux/iommufd.h, vfio.h). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ull

#define IOMMU_IOAS_ALLOC _IO(';', 0x81)
#define IOMMU_IOAS_MAP _IO(';', 0x85)
#define IOMMU_IOAS_UNMAP _IO(';', 0x86)
#define IOMMU_IOAS_MAP_FILE _IO(';', 0x8f)
#define VFIO_DEVICE_BIND_IOMMUFD _IO(';', 118)
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(';', 119)

enum { MAP_FIXED_IOVA = 1, MAP_WRITEABLE = 2, MAP_READABLE = 4 };

struct ioas_alloc {
  uint32_t size, flags, out_ioas_id;
};
struct ioas_map {
  uint32_t size, flags, ioas_id, reserved;
  uint64_t user_va, length, iova;
};
struct ioas_map_file {
  uint32_t size, flags, ioas_id;
  int32_t fd;
  uint64_t start, length, iova;
};
struct ioas_unmap {
  uint32_t size, ioas_id;
  uint64_t iova, length;
};
struct bind_iommufd {
  uint32_t argsz, flags;
  int32_t iommufd;
  uint32_t out_devid;
};
struct attach_iommufd_pt {
  uint32_t argsz, flags, pt_id;
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int by_file = strcmp(argv[2], "file") == 0;
  uint64_t mappings = strtoull(argv[3], NULL, 0);
  int iommufd = open("/dev/iommu", O_RDWR);
  int device = open(argv[1], O_RDWR);
  if (iommufd < 0 || device < 0) fail("open");
  struct bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommufd};
  if (ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind)) fail("BIND_IOMMUFD");
  struct ioas_alloc ioas = {.size = sizeof ioas};
  if (ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas)) fail("IOAS_ALLOC");
  struct attach_iommufd_pt attach = {.argsz = sizeof attach, .pt_id = ioas.out_ioas_id};
  if (ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach)) fail("ATTACH_IOMMUFD_PT");
  int fd = memfd_create("replay", 0);
  if (fd < 0 || ftruncate(fd, (off_t)(mappings * PAGE))) fail("memfd");
  /* Every other page, so that no two mappings adjoin, as in the program that this is compared with. */
  char *memory = mmap(NULL, mappings * 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  for (uint64_t i = 0; i < mappings; i++) {
    void *at = mmap(memory + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)(i * PAGE));
    if (at == MAP_FAILED) fail("mmap page");
    *(volatile char *)at = 1;
  }
  uint32_t flags = MAP_FIXED_IOVA | MAP_WRITEABLE | MAP_READABLE;
  for (long rounds = atol(argv[4]); rounds > 0; rounds--) {
    uint64_t begin = now();
    for (uint64_t i = 0; i < mappings; i++) {
      if (by_file) {
        struct ioas_map_file map = {
            .size = sizeof map,
            .flags = flags,
            .ioas_id = ioas.out_ioas_id,
            .fd = fd,
            .start = i * PAGE,
            .length = PAGE,
            .iova = 2 * i * PAGE,
        };
        if (ioctl(iommufd, IOMMU_IOAS_MAP_FILE, &map)) fail("IOAS_MAP_FILE");
      } else {
        struct ioas_map map = {
            .size = sizeof map,
            .flags = flags,
            .ioas_id = ioas.out_ioas_id,
            .user_va = (uintptr_t)(memory + 2 * i * PAGE),
            .length = PAGE,
            .iova = 2 * i * PAGE,
        };
        if (ioctl(iommufd, IOMMU_IOAS_MAP, &map)) fail("IOAS_MAP");
      }
    }
    printf("%llu\n", (unsigned long long)(now() - begin));
    struct ioas_unmap unmap = {.size = sizeof unmap, .ioas_id = ioas.out_ioas_id, .iova = 0, .length = UINT64_MAX};
    if (ioctl(iommufd, IOMMU_IOAS_UNMAP, &unmap)) fail("IOAS_UNMAP");
  }
  return 0;
}
