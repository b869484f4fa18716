/* The reference for RAM: fresh memory, faulted in by MADV_POPULATE_WRITE on several threads, and mapped into type1 if a
   group is given.
   populate BYTES THREADS ROUNDS file|huge-file|private|huge-private [GROUP IOVA]: prints the nanoseconds of each round.
   The huge kinds request transparent huge pages. */
#include "reference.h"
#include "type1.h"

#include <pthread.h>
#include <string.h>

struct part {
  char *start;
  size_t length;
};

static void *populate(void *argument) {
  struct part *part = argument;
  populate_memory(part->start, part->length);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 5 && argc != 7) return 2;
  size_t bytes = strtoull(argv[1], NULL, 0);
  size_t threads = strtoull(argv[2], NULL, 0);
  int huge = strncmp(argv[4], "huge-", 5) == 0;
  int private = strstr(argv[4], "private") != NULL;
  int container = argc == 7 ? open_type1(argv[5]) : -1;
  uint64_t iova = argc == 7 ? strtoull(argv[6], NULL, 0) : 0;
  for (long rounds = atol(argv[3]); rounds > 0; rounds--) {
    uint64_t begin = now();
    int fd = private ? -1 : new_file(bytes);
    int flags = private ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED) fail("mmap");
    if (huge && madvise(memory, bytes, MADV_HUGEPAGE)) fail("madvise huge");
    pthread_t thread[threads];
    struct part part[threads];
    for (size_t i = 0; i < threads; i++) {
      part[i] = (struct part){memory + i * (bytes / threads), bytes / threads};
      if (pthread_create(&thread[i], NULL, populate, &part[i])) fail("pthread_create");
    }
    for (size_t i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    if (container >= 0) map_dma(container, memory, iova, bytes);
    printf("%llu\n", (unsigned long long)(now() - begin));
    if (container >= 0) unmap_dma(container, iova, bytes);
    munmap(memory, bytes);
    if (!private) close(fd);
  }
  return 0;
}
