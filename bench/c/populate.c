/* The yardstick for ensureMapped: fresh memory of a memfd, faulted in by MADV_POPULATE_WRITE on as many threads.
   populate BYTES THREADS ROUNDS: a line of nanoseconds for each round. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct part {
  char *start;
  size_t length;
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void *populate(void *argument) {
  struct part *part = argument;
  if (madvise(part->start, part->length, MADV_POPULATE_WRITE)) fail("madvise");
  return NULL;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  size_t bytes = strtoull(argv[1], NULL, 0);
  size_t threads = strtoull(argv[2], NULL, 0);
  for (long rounds = atol(argv[3]); rounds > 0; rounds--) {
    int fd = memfd_create("populate", 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes)) fail("memfd");
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail("mmap");
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
