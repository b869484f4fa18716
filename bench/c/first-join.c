/* The reference for a first join with host memory: maps pages of a fresh memfd and faults them in.
   first-join MAPPINGS STRIDE ROUNDS: prints the nanoseconds of each round, one per line. STRIDE is in pages, from
   one mapping to the next; with 1, all of them are one mmap and one MADV_POPULATE_WRITE. */
#include "reference.h"

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  uint64_t mappings = strtoull(argv[1], NULL, 0);
  uint64_t stride = strtoull(argv[2], NULL, 0) * PAGE;
  for (long rounds = atol(argv[3]); rounds > 0; rounds--) {
    int fd = new_file(mappings * PAGE);
    uint64_t begin = now();
    char *memory = map_pages(fd, mappings, stride);
    printf("%llu\n", (unsigned long long)(now() - begin));
    munmap(memory, mappings * stride);
    close(fd);
  }
  return 0;
}
