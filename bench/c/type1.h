/* Helpers of the references on type1: a container, and memory mapped into it. Include reference.h first. */
#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

static inline int open_type1(const char *group_path) {
  int container = open("/dev/vfio/vfio", O_RDWR);
  int group = open(group_path, O_RDWR);
  if (container < 0 || group < 0) fail("open");
  if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)) fail("SET_CONTAINER");
  if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) fail("SET_IOMMU");
  return container;
}

static inline void map_dma(int container, char *memory, uint64_t iova, uint64_t length) {
  struct vfio_iommu_type1_dma_map map = {
      .argsz = sizeof map,
      .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
      .vaddr = (uintptr_t)memory,
      .iova = iova,
      .size = length,
  };
  if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map)) fail("MAP_DMA");
}

static inline void unmap_dma(int container, uint64_t iova, uint64_t length) {
  struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = iova, .size = length};
  if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap)) fail("UNMAP_DMA");
}
