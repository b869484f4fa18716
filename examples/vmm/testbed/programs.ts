/**
 * Shell programs of a Linux guest, which drive an edu and an ivshmem of QEMU, real or simulated.
 *
 * Each prints lines `LABEL: VALUE`.
 */

/** RAM that Linux does not use, and that programs use for DMA. The kernel's command line excludes it (`mem=`). */
export const FREE_RAM = 255n << 20n;
/** The command line of the kernel. `quiet`: each character of the console is an exit. */
export const COMMAND_LINE = `console=ttyS0 panic=-1 nokaslr tsc=reliable quiet mem=${FREE_RAM >> 20n}M`;
/** Bytes of RAM of the machine. */
export const MEMORY = 256n << 20n;

/** The bytes that the programs copy. */
export const VALUE = '0x1122334455667788';

/** Prints the version of the kernel, the number of processors, and the PCI devices. */
export const SUMMARY = String.raw`
echo "Linux: $(uname -r)"
echo "processors: $(grep -c ^processor /proc/cpuinfo)"
for device in /sys/bus/pci/devices/*; do
  echo "PCI device: $(basename $device) $(cat $device/vendor $device/device | tr '\n' ' ')"
done
`;

/**
 * The edu copies 8 bytes from RAM to RAM, and to BAR 2 of the ivshmem. Then the BAR moves, and the edu copies to its
 * new and to its old address.
 *
 * Registers of the edu: QEMU, docs/specs/edu.rst. Its buffer of 4 KiB is at 0x40000 for its DMA.
 *
 * @param edu its address on the bus, such as `00:01.0`
 * @param memory that of the ivshmem
 */
export const copies = (edu: string, memory: string): string => String.raw`
EDU=/sys/bus/pci/devices/0000:${edu} MEMORY=/sys/bus/pci/devices/0000:${memory}
# bar DEVICE INDEX: prints the address of a BAR
bar() { sed -n "$(($2 + 1))p" $1/resource | cut -d ' ' -f 1; }
# config DEVICE OFFSET: writes the input to the config space
config() { dd of=$1/config bs=1 seek=$2 conv=notrunc 2>/dev/null; }
# command DEVICE BITS: memory decode is bit 1, bus mastering bit 2
command() { printf "\\$2\\0" | config $1 4; }
byte() { printf "\\$(printf %o $((($1 >> $2) & 255)))"; }
# register DEVICE OFFSET VALUE
register() { { byte $3 0; byte $3 8; byte $3 16; byte $3 24; } | config $1 $2; }
# transfer FROM TO COMMAND
transfer() {
  devmem $((BASE + 0x80)) 64 $1; devmem $((BASE + 0x88)) 64 $2; devmem $((BASE + 0x90)) 64 8
  devmem $((BASE + 0x98)) 64 $3
  while [ $(($(devmem $((BASE + 0x98)) 64) & 1)) = 1 ]; do :; done
}
copy() { transfer $1 0x40000 1; transfer 0x40000 $2 3; }

command $EDU 6; command $MEMORY 6
BASE=$(bar $EDU 0) BAR=$(bar $MEMORY 2) RAM=${FREE_RAM}
devmem $RAM 64 ${VALUE}
copy $RAM $((RAM + 0x100)); echo "RAM -> edu -> RAM: $(devmem $((RAM + 0x100)) 64)"
copy $RAM $((BAR + 0x1000)); echo "RAM -> edu -> BAR: $(devmem $((BAR + 0x1000)) 64)"
MOVED=$((BAR + 0x10000000))
command $MEMORY 0
register $MEMORY 24 $((MOVED & 0xffffffff)); register $MEMORY 28 $((MOVED >> 32))
command $MEMORY 6
copy $RAM $((MOVED + 0x2000)); echo "RAM -> edu -> moved BAR: $(devmem $((MOVED + 0x2000)) 64)"
copy $RAM $((BAR + 0x3000)); echo "RAM -> edu -> old address of the BAR: $(devmem $((MOVED + 0x3000)) 64)"
`;

/** The edu raises its pin, which the driver `uio_pci_generic` takes. {@link copies} comes before. */
export const PIN = String.raw`
echo uio_pci_generic >$EDU/driver_override
basename $EDU >/sys/bus/pci/drivers_probe
exec 3<>/dev/$(ls $EDU/uio)
devmem $((BASE + 0x60)) 32 1
sleep 1
echo "interrupts of the edu: $(grep "^ *$(cat $EDU/irq):" /proc/interrupts | awk '{ print $2 + $3 }')"
devmem $((BASE + 0x64)) 32 1
`;

/**
 * Linux's NVMe driver writes a file of 16 MiB to the disk, and reads it back.
 *
 * {@link DISK_REPORT} prints the result.
 *
 * @param file its path in the guest
 */
export const disk = (file: string): string => String.raw`
dd if=${file} of=/dev/nvme0n1 bs=1M conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/nvme0n1 bs=1M count=16 2>/dev/null | cmp - ${file} && DISK=equal
`;

/** The vectors of the disk by MSI-X, and their interrupts. */
export const DISK_REPORT = String.raw`
echo "NVMe disk: $DISK"
grep 'MSI-\?X.*nvme0q' /proc/interrupts >/vectors
echo "MSI-X vectors of the disk: $(grep -c . /vectors)"
echo "interrupts of the disk: $(awk '{ for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum }' /vectors)"
`;
