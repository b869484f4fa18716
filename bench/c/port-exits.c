/* The reference for an exit that TypeScript handles: the same guest, whose exits are handled in the thread of its
   processor.
   port-exits FIRMWARE EXITS BATCHES: prints the nanoseconds of each batch of EXITS accesses to ports. */
#include "reference.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#define FIRMWARE 0xffff0000ull
#define FIRMWARE_LENGTH 0x10000ull
/* Pages for Intel's processors, which use them in real mode. Any that the guest does not use. */
#define TASK_STATE 0xfffbd000ull

static long request(int fd, unsigned long number, unsigned long argument) {
  long result = ioctl(fd, number, argument);
  if (result < 0) fail("ioctl");
  return result;
}

static void add_firmware(int machine, const char *path) {
  int fd = open(path, O_RDONLY);
  char *memory = mmap(NULL, FIRMWARE_LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  if (fd < 0 || memory == MAP_FAILED) fail(path);
  struct kvm_userspace_memory_region region = {
      .guest_phys_addr = FIRMWARE, .memory_size = FIRMWARE_LENGTH, .userspace_addr = (uint64_t)memory};
  request(machine, KVM_SET_USER_MEMORY_REGION, (unsigned long)&region);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  long exits = atol(argv[2]), batches = atol(argv[3]);
  int kvm = open("/dev/kvm", O_RDWR);
  if (kvm < 0) fail("/dev/kvm");
  int machine = (int)request(kvm, KVM_CREATE_VM, 0);
  request(machine, KVM_SET_TSS_ADDR, TASK_STATE);
  request(machine, KVM_CREATE_IRQCHIP, 0);
  add_firmware(machine, argv[1]);
  int processor = (int)request(machine, KVM_CREATE_VCPU, 0);
  size_t length = (size_t)request(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  struct kvm_run *run = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, processor, 0);
  if (run == MAP_FAILED) fail("mmap");
  uint64_t written = 0;
  for (; batches > 0; batches--) {
    uint64_t begin = now();
    for (long count = 0; count < exits; count++) {
      request(processor, KVM_RUN, 0);
      if (run->exit_reason != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_OUT) return 3;
      written += *((uint8_t *)run + run->io.data_offset);
    }
    printf("%llu\n", (unsigned long long)(now() - begin));
  }
  return written == 0 ? 0 : 3; /* the guest writes zeros */
}
