/* The reference for a replay on real type1: the same ioctls in a loop.
   replay GROUP MAPPINGS STRIDE ROUNDS: prints the nanoseconds of mapping and faulting in the memory in this process,
   then those of each round. STRIDE is in pages, from one mapping to the next; with 1 the process has one mapping of
   them all. */
#include "reference.h"
#include "type1.h"

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  uint64_t mappings = strtoull(argv[2], NULL, 0);
  uint64_t stride = strtoull(argv[3], NULL, 0) * PAGE;
  int container = open_type1(argv[1]);
  int fd = new_file(mappings * PAGE);
  uint64_t set_up = now();
  char *memory = map_pages(fd, mappings, stride);
  printf("%llu\n", (unsigned long long)(now() - set_up));
  for (long rounds = atol(argv[4]); rounds > 0; rounds--) {
    uint64_t begin = now();
    for (uint64_t i = 0; i < mappings; i++) map_dma(container, memory + i * stride, i * stride, PAGE);
    printf("%llu\n", (unsigned long long)(now() - begin));
    unmap_dma(container, 0, mappings * stride);
  }
  return 0;
}
