/**
 * Commands that mend what more than one finding is about, as Debian and Ubuntu have them. The kernel's command line is
 * GRUB's, and counts from the next boot on.
 */
const GRUB = '/etc/default/grub';

/** @internal */
export const FIRMWARE_SETUP = 'sudo systemctl reboot --firmware-setup';

/** One that has IOMMU drivers and VFIO; it runs from the next boot on. @internal */
export const INSTALL_KERNEL = 'sudo apt-get install linux-image-amd64';

/** @param word such as `intel_iommu=on` @internal */
export function addToCommandLine(word: string): string {
  return `sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&${word} /' ${GRUB} && sudo update-grub`;
}

/** @param words that are there; what could mean something to a shell makes no command @internal */
export function removeFromCommandLine(...words: string[]): string | undefined {
  if (!words.every((word) => /^[\w=,-]+$/.test(word))) return undefined;
  const removals = words.map((word) => `s/\\b${word}\\b//`).join('; ');
  return `sudo sed -i '${removals}' ${GRUB} && sudo update-grub`;
}
