/**
 * Shell commands that several findings suggest, for Debian and Ubuntu.
 *
 * Changes of the kernel's command line are made for GRUB and take effect at the next boot.
 */
const GRUB = '/etc/default/grub';

/** @internal */
export const FIRMWARE_SETUP = 'sudo systemctl reboot --firmware-setup';

/** Installs a kernel with IOMMU drivers and VFIO for the next boot. @internal */
export const INSTALL_KERNEL = 'sudo apt-get install linux-image-amd64';

/** @param word parameter to add, such as `intel_iommu=on` @internal */
export function addToCommandLine(word: string): string {
  return `sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&${word} /' ${GRUB} && sudo update-grub`;
}

/** @param words parameters to remove. Returns `undefined` if a shell would interpret one of them @internal */
export function removeFromCommandLine(...words: string[]): string | undefined {
  if (!words.every((word) => /^[\w=,-]+$/.test(word))) return undefined;
  const removals = words.map((word) => `s/\\b${word}\\b//`).join('; ');
  return `sudo sed -i '${removals}' ${GRUB} && sudo update-grub`;
}
