/* Copies a memory file into another one: read() and write() of 1 MiB at a time. Prints the nanoseconds of each copy.
   Arguments: the bytes, a multiple of 1 MiB; the number of copies. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1 << 20)

static char piece[PIECE];

static int file_of(uint64_t bytes) {
  int fd = memfd_create("copy", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0) exit(1);
  return fd;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  uint64_t bytes = strtoull(argv[1], NULL, 10);
  int from = file_of(bytes);
  memset(piece, 1, PIECE);
  for (uint64_t at = 0; at < bytes; at += PIECE) {
    if (pwrite(from, piece, PIECE, (off_t)at) != PIECE) return 1;
  }
  for (int copy = atoi(argv[2]); copy > 0; copy--) {
    int into = file_of(bytes);
    if (lseek(from, 0, SEEK_SET) < 0) return 1;
    uint64_t start = now();
    for (uint64_t at = 0; at < bytes; at += PIECE) {
      if (read(from, piece, PIECE) != PIECE || write(into, piece, PIECE) != PIECE) return 1;
    }
    printf("%llu\n", (unsigned long long)(now() - start));
    close(into);
  }
  return 0;
}
