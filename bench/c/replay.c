/* The yardstick for a replay on real type1: the same ioctls in a loop.
   replay GROUP MAPPINGS ROUNDS: a line of nanoseconds for each round. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ull

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
  if (argc != 4) return 2;
  uint64_t mappings = strtoull(argv[2], NULL, 0);
  int container = open("/dev/vfio/vfio", O_RDWR);
  int group = open(argv[1], O_RDWR);
  if (container < 0 || group < 0) fail("open");
  if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)) fail("SET_CONTAINER");
  if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) fail("SET_IOMMU");
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
  for (long rounds = atol(argv[3]); rounds > 0; rounds--) {
    uint64_t begin = now();
    for (uint64_t i = 0; i < mappings; i++) {
      struct vfio_iommu_type1_dma_map map = {
          .argsz = sizeof map,
          .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
          .vaddr = (uintptr_t)(memory + 2 * i * PAGE),
          .iova = 2 * i * PAGE,
          .size = PAGE,
      };
      if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map)) fail("MAP_DMA");
    }
    printf("%llu\n", (unsigned long long)(now() - begin));
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = 0, .size = mappings * 2 * PAGE};
    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap)) fail("UNMAP_DMA");
  }
  return 0;
}
