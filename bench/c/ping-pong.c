/* The reference for a crossing between two threads: a byte through a pipe, and one back through another.
   ping-pong ROUNDS PAUSE: prints the nanoseconds of each round. Before each, the first thread sleeps PAUSE
   microseconds. */
#include "reference.h"

#include <pthread.h>

static int there[2], back[2];

static void *answer(void *argument) {
  char byte;
  while (read(there[0], &byte, 1) == 1)
    if (write(back[1], &byte, 1) != 1) fail("write");
  return argument;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  if (pipe(there) || pipe(back)) fail("pipe");
  pthread_t thread;
  if (pthread_create(&thread, NULL, answer, NULL)) fail("pthread_create");
  useconds_t pause = atol(argv[2]);
  for (long rounds = atol(argv[1]); rounds > 0; rounds--) {
    char byte = 0;
    if (pause) usleep(pause);
    uint64_t begin = now();
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("a pipe");
    printf("%llu\n", (unsigned long long)(now() - begin));
  }
  return 0;
}
