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

/// The ways a PCI device can interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqKind {
    /// The pin. The kernel masks it each time it has signalled it.
    Intx,
    /// Messages.
    Msi,
    /// Messages by table.
    Msix,
    /// An uncorrectable error of the device (PCIe AER).
    Error,
    /// The host wants the device back.
    Request,
}

impl IrqKind {
    /// All of them, in the order of their VFIO indices.
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
    /// How many vectors of a kind the device has; 0 where it has none.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        self.inner.with_fd(|fd| self.count_irqs(fd, kind))?
    }

    /// Whether a kind that is connected can be given more vectors without being disconnected (dynamic MSI-X, since
    /// Linux 6.4). Where it can't, connecting takes as many from the host as it ever is to have.
    ///
    /// # Errors
    /// `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn irq_grows(&self, kind: IrqKind) -> Result<bool> {
        let info = self.inner.with_fd(|fd| self.irq_info(fd, kind))??;
        Ok(info.is_some_and(|info| info.flags & VFIO_IRQ_INFO_NORESIZE == 0))
    }

    /// Signals `events`, one for each vector from `start` on, when the device interrupts; `None` leaves a
    /// vector silent. Where the kind is not connected, this connects it with vectors up to the last of these; where
    /// it is, vectors beyond those may be refused (`VFIO_IRQ_INFO_NORESIZE`). The kernel keeps its own hold on the
    /// eventfds. If it fails for a kind that was not connected, that is not connected then either; otherwise the
    /// vectors that it was for may be silent.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_UNSUPPORTED` for vectors that the device does not have; `ERR_INTERRUPT_SETUP` where the
    /// kernel refuses (`EINVAL`: another of INTx, MSI and MSI-X is connected) or has fewer vectors to give;
    /// `ERR_CLOSED`.
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
                    "device {} has {count} vector(s) of {}, and not {end}",
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
                        "the kernel has only {fewer} of the {end} vector(s) of {} to give that device {} is to have",
                        kind.name(),
                        self.inner.name
                    );
                    Err(Error::new(ErrorCode::InterruptSetup, message))
                }
                Err(errno) => Err(self.irq_refused(kind, "connecting", errno)),
            }
        })?
    }

    /// Silences all vectors of a kind, which is then not connected.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_SETUP`, of INTx, MSI and MSI-X also where it is not connected (`EINVAL`); `ERR_CLOSED`.
    pub fn disconnect_irqs(&self, kind: IrqKind) -> Result<()> {
        self.set_irqs(kind, VFIO_IRQ_SET_ACTION_TRIGGER, 0, "disconnecting")
    }

    /// Masks the pin.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_SETUP` where it is not connected (`EINVAL`); `ERR_CLOSED`.
    pub fn mask_intx(&self) -> Result<()> {
        self.set_irqs(IrqKind::Intx, VFIO_IRQ_SET_ACTION_MASK, 1, "masking")
    }

    /// Lets the pin interrupt again; if it is asserted, it does so at once.
    ///
    /// # Errors
    /// As [`mask_intx`](Self::mask_intx).
    pub fn unmask_intx(&self) -> Result<()> {
        self.set_irqs(IrqKind::Intx, VFIO_IRQ_SET_ACTION_UNMASK, 1, "unmasking")
    }

    /// From now on unmasks the pin whenever `event` is signalled, the count of which the kernel takes; `None` for
    /// no more. Ends when INTx is disconnected.
    ///
    /// # Errors
    /// `ERR_INTERRUPT_SETUP` where INTx is not connected (`EINVAL`), or another eventfd does this already (`EBUSY`);
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

    /// `None` where the device has no such kind.
    fn irq_info(&self, fd: BorrowedFd<'_>, kind: IrqKind) -> Result<Option<vfio_irq_info>> {
        let asking = |errno, syscall| {
            let what = format!("asking for {} of device {}", kind.name(), self.inner.name);
            Error::os(ErrorCode::System, errno, syscall, what)
        };
        let info = ioctl::device_get_info(fd)
            .map_err(|errno| asking(errno, "ioctl(VFIO_DEVICE_GET_INFO)"))?;
        if kind.index() >= info.num_irqs {
            return Ok(None);
        }
        match ioctl_irq::device_get_irq_info(fd, kind.index()) {
            Ok(info) => Ok(Some(info)),
            Err(Errno::EINVAL) => Ok(None), // what only PCI Express has, on a device that is not
            Err(errno) => Err(asking(errno, "ioctl(VFIO_DEVICE_GET_IRQ_INFO)")),
        }
    }

    fn set_irqs(&self, kind: IrqKind, action: u32, count: u32, what: &str) -> Result<()> {
        self.inner
            .with_fd(|fd| ioctl_irq::device_set_irqs(fd, action, kind.index(), 0, count))?
            .map(drop)
            .map_err(|errno| self.irq_refused(kind, what, errno))
    }

    fn irq_refused(&self, kind: IrqKind, what: &str, errno: Errno) -> Error {
        let what = format!("{what} {} of device {}", kind.name(), self.inner.name);
        Error::os(ErrorCode::InterruptSetup, errno, SET_IRQS, what)
    }
}
