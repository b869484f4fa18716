//! A device's interrupts, signalled on eventfds.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::abi::{
    VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX, vfio_irq_info,
};
use super::device::Device;
use super::{ioctl, ioctl_irq};
use crate::event::EventFd;
use crate::{Error, ErrorCode, Result};

const SET_IRQS: &str = "ioctl(VFIO_DEVICE_SET_IRQS)";

/// The kinds of interrupts of a PCI device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqKind {
    /// The interrupt pin. The kernel masks it after each signal.
    Intx,
    /// Message-signalled interrupts.
    Msi,
    /// Message-signalled interrupts with a table.
    Msix,
    /// An uncorrectable error of the device (PCIe AER).
    Error,
    /// The host requests the return of the device.
    Request,
}

impl IrqKind {
    /// All kinds, in the order of their VFIO indices.
    pub const ALL: [Self; 5] = [
        Self::Intx,
        Self::Msi,
        Self::Msix,
        Self::Error,
        Self::Request,
    ];

    const fn index(self) -> u32 {
        match self {
            Self::Intx => VFIO_PCI_INTX_IRQ_INDEX,
            Self::Msi => VFIO_PCI_MSI_IRQ_INDEX,
            Self::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
            Self::Error => VFIO_PCI_ERR_IRQ_INDEX,
            Self::Request => VFIO_PCI_REQ_IRQ_INDEX,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
            Self::Error => "error",
            Self::Request => "request",
        }
    }
}

impl Device {
    /// Returns the number of vectors of a kind; 0 if the device does not have it.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        self.inner.with_fd(|fd| self.count_irqs(fd, kind))?
    }

    /// Whether vectors can be added to a connected kind (dynamic MSI-X, since Linux 6.4). Otherwise, connecting must
    /// include all vectors that will be used.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn irq_grows(&self, kind: IrqKind) -> Result<bool> {
        let info = self.inner.with_fd(|fd| self.irq_info(fd, kind))??;
        Ok(info.is_some_and(|info| info.flags & VFIO_IRQ_INFO_NORESIZE == 0))
    }

    /// Connects `events` to the vectors from `start` on. The kernel signals them when the device interrupts. `None`
    /// disconnects a vector. Connects the kind with vectors up to the last of these if it is not connected; adding
    /// vectors to a connected kind can fail (`VFIO_IRQ_INFO_NORESIZE`). The kernel holds its own references to the
    /// eventfds. After a failure, a kind that was not connected stays unconnected; of a connected kind, the affected
    /// vectors may be disconnected.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_UNSUPPORTED` if the device does not have the vectors; `ERR_INTERRUPT_SETUP` if the kernel fails
    /// (`EINVAL`: another of INTx, MSI and MSI-X is connected) or has fewer vectors; `ERR_CLOSED`.
    pub fn connect_irqs(
        &self,
        kind: IrqKind,
        start: u32,
        events: &[Option<EventFd>],
    ) -> Result<()> {
        let eventfds: Vec<_> = events
            .iter()
            .map(|event| event.as_ref().map(EventFd::raw_fd))
            .collect();
        self.inner.with_fd(|fd| {
            let count = self.count_irqs(fd, kind)?;
            let end = u64::from(start).saturating_add(crate::range::to_u64(eventfds.len()));
            if end > u64::from(count) {
                let message = format!(
                    "device {} has {count} vector(s) of {}, fewer than {end}",
                    self.inner.name,
                    kind.name()
                );
                return Err(Error::new(ErrorCode::InterruptUnsupported, message));
            }
            let action = VFIO_IRQ_SET_ACTION_TRIGGER;
            let answer = ioctl_irq::device_set_irq_eventfds(fd, action, kind.index(), start, &eventfds);
            match answer {
                Ok(0) => Ok(()),
                Ok(fewer) => {
                    let message = format!(
                        "the kernel has only {fewer} of the {end} requested vector(s) of {} for device {}",
                        kind.name(),
                        self.inner.name
                    );
                    Err(Error::new(ErrorCode::InterruptSetup, message))
                }
                Err(errno) => Err(self.irq_refused(kind, "connecting", errno)),
            }
        })?
    }

    /// Disconnects all vectors of a kind.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_SETUP`, for INTx, MSI and MSI-X also if it is not connected (`EINVAL`); `ERR_CLOSED`.
    pub fn disconnect_irqs(&self, kind: IrqKind) -> Result<()> {
        self.set_irqs(kind, VFIO_IRQ_SET_ACTION_TRIGGER, 0, "disconnecting")
    }

    /// Masks INTx.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_SETUP` if INTx is not connected (`EINVAL`); `ERR_CLOSED`.
    pub fn mask_intx(&self) -> Result<()> {
        self.set_irqs(IrqKind::Intx, VFIO_IRQ_SET_ACTION_MASK, 1, "masking")
    }

    /// Unmasks INTx; a pending interrupt is signalled at once.
    ///
    /// # Errors
    /// As [`mask_intx`](Self::mask_intx).
    pub fn unmask_intx(&self) -> Result<()> {
        self.set_irqs(IrqKind::Intx, VFIO_IRQ_SET_ACTION_UNMASK, 1, "unmasking")
    }

    /// Unmasks INTx whenever `event` is signalled; the kernel takes its count. `None` stops that, as does
    /// disconnecting INTx.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_SETUP` if INTx is not connected (`EINVAL`), or has such an eventfd already (`EBUSY`);
    /// `ERR_CLOSED`.
    pub fn unmask_intx_on(&self, event: Option<&EventFd>) -> Result<()> {
        let (action, index) = (VFIO_IRQ_SET_ACTION_UNMASK, IrqKind::Intx.index());
        let eventfd = [event.map(EventFd::raw_fd)];
        self.inner
            .with_fd(|fd| ioctl_irq::device_set_irq_eventfds(fd, action, index, 0, &eventfd))?
            .map(drop)
            .map_err(|errno| self.irq_refused(IrqKind::Intx, "unmasking by an event", errno))
    }

    fn count_irqs(&self, fd: BorrowedFd<'_>, kind: IrqKind) -> Result<u32> {
        Ok(self.irq_info(fd, kind)?.map_or(0, |info| info.count))
    }

    /// Returns `None` if the device does not have the kind.
    fn irq_info(&self, fd: BorrowedFd<'_>, kind: IrqKind) -> Result<Option<vfio_irq_info>> {
        let failed = |errno, syscall| {
            let operation = format!(
                "reading the {} interrupts of device {}",
                kind.name(),
                self.inner.name
            );
            Error::os(ErrorCode::System, errno, syscall, operation)
        };
        let info = ioctl::device_get_info(fd)
            .map_err(|errno| failed(errno, "ioctl(VFIO_DEVICE_GET_INFO)"))?;
        if kind.index() >= info.num_irqs {
            return Ok(None);
        }
        match ioctl_irq::device_get_irq_info(fd, kind.index()) {
            Ok(info) => Ok(Some(info)),
            Err(Errno::EINVAL) => Ok(None), // a kind of PCI Express, on a conventional device
            Err(errno) => Err(failed(errno, "ioctl(VFIO_DEVICE_GET_IRQ_INFO)")),
        }
    }

    fn set_irqs(&self, kind: IrqKind, action: u32, count: u32, operation: &str) -> Result<()> {
        self.inner
            .with_fd(|fd| ioctl_irq::device_set_irqs(fd, action, kind.index(), 0, count))?
            .map(drop)
            .map_err(|errno| self.irq_refused(kind, operation, errno))
    }

    fn irq_refused(&self, kind: IrqKind, operation: &str, errno: Errno) -> Error {
        let operation = format!("{operation} {} of device {}", kind.name(), self.inner.name);
        Error::os(ErrorCode::InterruptSetup, errno, SET_IRQS, operation)
    }
}
