/* The yardstick for a replay on real type1: the same ioctls in a loop.
   replay GROUP MAPPINGS STRIDE ROUNDS: a line of nanoseconds for mapping and faulting in the memory in this process,
   then one for each round. STRIDE is in pages, from one mapping to the next; with 1 the process has one mapping of
   them all. */
#include "yardstick.h"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  uint64_t mappings = strtoull(argv[2], NULL, 0);
  uint64_t stride = strtoull(argv[3], NULL, 0) * PAGE;
  int container = open("/dev/vfio/vfio", O_RDWR);
  int group = open(argv[1], O_RDWR);
  if (container < 0 || group < 0) fail("open");
  if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)) fail("SET_CONTAINER");
  if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) fail("SET_IOMMU");
  int fd = new_file(mappings * PAGE);
  uint64_t set_up = now();
  char *memory = map_pages(fd, mappings, stride);
  printf("%llu\n", (unsigned long long)(now() - set_up));
  for (long rounds = atol(argv[4]); rounds > 0; rounds--) {
    uint64_t begin = now();
    for (uint64_t i = 0; i < mappings; i++) {
      struct vfio_iommu_type1_dma_map map = {
          .argsz = sizeof map,
          .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
          .vaddr = (uintptr_t)(memory + i * stride),
          .iova = i * stride,
          .size = PAGE,
      };
      if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map)) fail("MAP_DMA");
    }
    printf("%llu\n", (unsigned long long)(now() - begin));
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = 0, .size = mappings * stride};
    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap)) fail("UNMAP_DMA");
  }
  return 0;
}
