/* The reference for a replay into an address space of iommufd: the same ioctls in a loop.
   replay-iommufd DEVICE file|memory MAPPINGS STRIDE ROUNDS: prints the nanoseconds of mapping and
   faulting in the memory in this process (not for mapping by file), then those of each round. DEVICE is
   /dev/vfio/devices/vfioN. STRIDE is in pages, from one mapping to the next; with 1 the process has one mapping of
   all of them.
   Systems' headers are older than iommufd: the few structures stand here (include/uapi/linux/iommufd.h, vfio.h). */
#include "reference.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

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

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  int by_file = strcmp(argv[2], "file") == 0;
  uint64_t mappings = strtoull(argv[3], NULL, 0);
  uint64_t stride = strtoull(argv[4], NULL, 0) * PAGE;
  int iommufd = open("/dev/iommu", O_RDWR);
  int device = open(argv[1], O_RDWR);
  if (iommufd < 0 || device < 0) fail("open");
  struct bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommufd};
  if (ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind)) fail("BIND_IOMMUFD");
  struct ioas_alloc ioas = {.size = sizeof ioas};
  if (ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas)) fail("IOAS_ALLOC");
  struct attach_iommufd_pt attach = {.argsz = sizeof attach, .pt_id = ioas.out_ioas_id};
  if (ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach)) fail("ATTACH_IOMMUFD_PT");
  int fd = new_file(mappings * PAGE);
  uint64_t set_up = now();
  char *memory = by_file ? NULL : map_pages(fd, mappings, stride);
  printf("%llu\n", (unsigned long long)(now() - set_up));
  uint32_t flags = MAP_FIXED_IOVA | MAP_WRITEABLE | MAP_READABLE;
  for (long rounds = atol(argv[5]); rounds > 0; rounds--) {
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
            .iova = i * stride,
        };
        if (ioctl(iommufd, IOMMU_IOAS_MAP_FILE, &map)) fail("IOAS_MAP_FILE");
      } else {
        struct ioas_map map = {
            .size = sizeof map,
            .flags = flags,
            .ioas_id = ioas.out_ioas_id,
            .user_va = (uintptr_t)(memory + i * stride),
            .length = PAGE,
            .iova = i * stride,
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
