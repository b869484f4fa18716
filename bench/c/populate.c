/* The yardstick for ensureMapped: fresh memory of a memfd, faulted in by MADV_POPULATE_WRITE on as many threads.
   populate BYTES THREADS ROUNDS small|huge: a line of nanoseconds for each round. `huge` asks for transparent huge
   pages. */
#include "yardstick.h"

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
  if (argc != 5) return 2;
  size_t bytes = strtoull(argv[1], NULL, 0);
  size_t threads = strtoull(argv[2], NULL, 0);
  int huge = strcmp(argv[4], "huge") == 0;
  for (long rounds = atol(argv[3]); rounds > 0; rounds--) {
    int fd = new_file(bytes);
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail("mmap");
    if (huge && madvise(memory, bytes, MADV_HUGEPAGE)) fail("madvise huge");
    pthread_t thread[threads];
    struct part part[threads];
    uint64_t begin = now();
    for (size_t i = 0; i < threads; i++) {
      part[i] = (struct part){memory + i * (bytes / threads), bytes / threads};
      if (pthread_create(&thread[i], NULL, populate, &part[i])) fail("pthread_create");
    }
    for (size_t i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    printf("%llu\n", (unsigned long long)(now() - begin));
    munmap(memory, bytes);
    close(fd);
  }
  return 0;
}
