/*
 * vhost-user: a back end that confirms memory regions without mapping them, and a front end that adds them.
 *
 *     vhost-user-replay sink                  the back end, on the socket with the descriptor 3
 *     vhost-user-replay MAPPINGS ROUNDS       adds that many regions to a back end in a child process, and prints the
 *                                             nanoseconds of each round
 *
 * The front end sends as many requests before it reads their confirmations as the queue of a socket has room for.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* QEMU, docs/interop/vhost-user.rst */
enum { GET_FEATURES = 1, GET_PROTOCOL_FEATURES = 15, GET_MAX_MEM_SLOTS = 36, ADD_MEM_REG = 37, REM_MEM_REG = 38 };
enum { VERSION = 1, REPLY = 4, NEED_REPLY = 8 };
#define PROTOCOL_FEATURES (1ull << 30)
#define REPLY_ACK (1ull << 3)
#define CONFIGURE_MEM_SLOTS (1ull << 15)
#define WINDOW 64
#define PAGE 4096ull

struct header {
  uint32_t request, flags, size;
} __attribute__((packed));

struct add {
  struct header header;
  uint64_t padding, start, length, user, offset;
} __attribute__((packed));

struct reply {
  struct header header;
  uint64_t value;
} __attribute__((packed));

static void require(int holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

/* Receives a header, and closes the descriptors that come with it. Returns 0 at the end. */
static int receive_header(int fd, struct header *header) {
  char control[CMSG_SPACE(8 * sizeof(int))];
  struct iovec part = {header, sizeof *header};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t count = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
  if (count <= 0) return 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    int *fds = (int *)CMSG_DATA(c);
    for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) close(fds[i]);
  }
  return 1;
}

static void serve(int fd) {
  struct header header;
  char payload[4096];
  while (receive_header(fd, &header)) {
    if (header.size > 0) require(recv(fd, payload, header.size, MSG_WAITALL) == header.size, "recv");
    struct reply reply = {{header.request, VERSION | REPLY, sizeof reply.value}, 0};
    int has_reply = 1;
    if (header.request == GET_FEATURES) reply.value = PROTOCOL_FEATURES;
    else if (header.request == GET_PROTOCOL_FEATURES) reply.value = REPLY_ACK | CONFIGURE_MEM_SLOTS;
    else if (header.request == GET_MAX_MEM_SLOTS) reply.value = 1 << 16;
    else has_reply = header.flags & NEED_REPLY;
    if (has_reply) require(send(fd, &reply, sizeof reply, 0) == sizeof reply, "send");
  }
}

static void send_region(int fd, uint32_t request, uint64_t index, int memory) {
  uint64_t start = index * 2 * PAGE;
  struct add add = {{request, VERSION | NEED_REPLY, sizeof add - sizeof add.header}, 0, start, PAGE, start, start};
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec part = {&add, sizeof add};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (memory >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &memory, sizeof(int));
  }
  require(sendmsg(fd, &message, 0) == sizeof add, "sendmsg");
}

static void send_all(int fd, uint32_t request, int mappings, int memory) {
  static struct reply replies[WINDOW];
  for (int at = 0; at < mappings; at += WINDOW) {
    int count = mappings - at < WINDOW ? mappings - at : WINDOW;
    for (int i = 0; i < count; i++) send_region(fd, request, at + i, memory);
    ssize_t size = count * sizeof *replies;
    require(recv(fd, replies, size, MSG_WAITALL) == size, "recv");
    for (int i = 0; i < count; i++) require(replies[i].value == 0, "a confirmation");
  }
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

int main(int count, char **args) {
  if (count == 2 && strcmp(args[1], "sink") == 0) {
    serve(3);
    return 0;
  }
  int mappings = atoi(args[1]), rounds = atoi(args[2]), pair[2];
  require(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
  if (fork() == 0) {
    close(pair[0]);
    serve(pair[1]);
    return 0;
  }
  close(pair[1]);
  int memory = memfd_create("memory", MFD_CLOEXEC);
  require(memory >= 0 && ftruncate(memory, mappings * 2 * PAGE) == 0, "memfd");
  for (int round = 0; round < rounds; round++) {
    uint64_t begin = now();
    send_all(pair[0], ADD_MEM_REG, mappings, memory);
    printf("%llu\n", (unsigned long long)(now() - begin));
    send_all(pair[0], REM_MEM_REG, mappings, -1);
  }
  return 0;
}
