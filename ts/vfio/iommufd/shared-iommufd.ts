/**
 * The `/dev/iommu` of this thread, opened once. Devices of several managers that share a bus can only be reset together
 * if they are bound to the same iommufd (Linux `vfio_pci_dev_set_hot_reset`).
 */
import { NativeIommufd } from '#native';

let shared: NativeIommufd | undefined;
let users = 0;

/** A reference to the open iommufd. @internal */
export class SharedIommufd {
  #released = false;
  readonly iommufd: NativeIommufd;

  private constructor(iommufd: NativeIommufd) {
    this.iommufd = iommufd;
  }

  /** Opens the iommufd, or shares the open one. @throws the error of the native core */
  static open(): SharedIommufd {
    shared ??= NativeIommufd.open();
    users++;
    return new SharedIommufd(shared);
  }

  /** Releases the reference. With the last one, closes the iommufd. Idempotent. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (--users > 0) return;
    shared?.close();
    shared = undefined;
  }
}
