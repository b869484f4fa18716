# The guest's first process with the root mounted: binds the devices to VFIO, runs the command, reports, powers off.
work=/run/testbed
control=$work/control
export PATH=$work/bin
$work/bin/busybox --install -s $work/bin

fail() {
  echo "testbed: $1" >/dev/console
  echo "$1" >$control/failure
  poweroff -f
}

# Succeeds if a device shares its group with a device that has a driver of the guest.
entangled() {
  for other in "$1"/iommu_group/devices/*; do
    case $(basename "$(readlink "$other/driver")") in virtio-pci) return 0 ;; esac
  done
  return 1
}

# give NAME BDF: binds the device to vfio-pci, and sets the variable that names its address.
give() {
  device=/sys/bus/pci/devices/$2
  echo vfio-pci >"$device/driver_override"
  [ -e "$device/driver" ] && echo "$2" >"$device/driver/unbind"
  echo "$2" >/sys/bus/pci/drivers_probe
  [ "$(basename "$(readlink "$device/driver")")" = vfio-pci ] || fail "$1 at $2 cannot be bound to vfio-pci"
  testbed_env="$testbed_env PEERDMA_TESTBED_$1=$2"
  case $1 in ENTANGLED | IGB) ;; *) devices="$devices${devices:+,}$2" ;; esac
}

# In the order of addresses: the ivshmem on the root complex precedes the one behind the port.
testbed_env= devices=
edu=0 ivshmem=0 nvme=0
for device in /sys/bus/pci/devices/*; do
  bdf=${device##*/}
  case $(cat "$device/vendor")$(cat "$device/device") in
    0x12340x11e8) entangled "$device" && give ENTANGLED "$bdf" && continue; give "EDU$edu" "$bdf"; edu=$((edu + 1)) ;;
    0x1af40x1110) give "IVSHMEM$ivshmem" "$bdf"; ivshmem=$((ivshmem + 1)) ;;
    0x80860x10c9) give IGB "$bdf" ;;
    0x1b360x0010) give "NVME$nvme" "$bdf"; nvme=$((nvme + 1)) ;;
  esac
done

testbed_env="$testbed_env PEERDMA_VFIO_DEVICES=$devices"

ifconfig lo 127.0.0.1 up
cut -d ' ' -f 1 /proc/uptime >$control/up.partial
mv $control/up.partial $control/up

# The host wrote command.sh: it executes the command with its own environment and $testbed_env.
export testbed_env
setsid sh $control/command.sh </dev/null >>$control/stdout 2>>$control/stderr
status=$?

dmesg >$control/kernel.log
echo $status >$control/status.partial
mv $control/status.partial $control/status
poweroff -f
