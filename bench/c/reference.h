/* Helpers of the references: failing, the clock, and memory of a file in this process. Include it first. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE 4096ull

static inline void fail(const char *what) {
  perror(what);
  exit(1);
}

static inline uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline int new_file(uint64_t bytes) {
  int fd = memfd_create("reference", 0);
  if (fd < 0 || ftruncate(fd, (off_t)bytes)) fail("memfd");
  return fd;
}

static inline void map_file(int fd, char *at, uint64_t length, uint64_t offset) {
  if (mmap(at, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) fail("mmap");
}

static inline void populate_memory(char *at, uint64_t length) {
  if (madvise(at, length, MADV_POPULATE_WRITE)) fail("madvise");
}

/* Maps pages of a file, `stride` bytes from one to the next, and faults them in. Without gaps the result is one
   mapping. */
static inline char *map_pages(int fd, uint64_t pages, uint64_t stride) {
  char *memory = mmap(NULL, pages * stride, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  if (stride == PAGE) {
    map_file(fd, memory, pages * PAGE, 0);
    populate_memory(memory, pages * PAGE);
    return memory;
  }
  for (uint64_t i = 0; i < pages; i++) map_file(fd, memory + i * stride, PAGE, i * PAGE);
  for (uint64_t i = 0; i < pages; i++) populate_memory(memory + i * stride, PAGE);
  return memory;
}
