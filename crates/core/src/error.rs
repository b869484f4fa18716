//! The one error type: a stable code, the kernel's errno, the system call, and a text for people.

use std::borrow::Cow;

use nix::errno::Errno;

use crate::Range;

/// What a fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// What went wrong, as a name that stays the same from release to release.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $variant,)+ }

        impl ErrorCode {
            /// The name as callers see it: `ERR_…`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

codes! {
    /// An argument is not of the kind the function takes.
    InvalidArgument = "ERR_INVALID_ARGUMENT",
    /// A range ends beyond the reservation, file or region, or wraps around 2^64.
    OutOfRange = "ERR_OUT_OF_RANGE",
    /// An address, length or offset is not a multiple of the page or access size.
    Unaligned = "ERR_UNALIGNED",
    /// A range of length zero.
    EmptyRange = "ERR_EMPTY_RANGE",
    /// What the call needs was closed.
    Closed = "ERR_CLOSED",
    /// A lease (an IOMMU mapping, usually) still holds the range.
    VaInUse = "ERR_VA_IN_USE",
    /// The range has a gap where nothing is mapped.
    VaNotMapped = "ERR_VA_NOT_MAPPED",
    /// The process may not reserve that much address space.
    AddressSpaceLimit = "ERR_ADDRESS_SPACE_LIMIT",
    /// The memory behind a range can't be reached: past the end of its file, read-only, or a BAR.
    MemoryFault = "ERR_MEMORY_FAULT",
    /// The system's page size is not one this crate can work with.
    PageSize = "ERR_PAGE_SIZE",
    /// The process has about as many memory mappings as the kernel lets it have.
    MappingLimit = "ERR_MAPPING_LIMIT",
    /// Something is already mapped or placed there.
    Overlap = "ERR_OVERLAP",
    /// No huge pages of that size are free.
    HugePagesUnavailable = "ERR_HUGE_PAGES_UNAVAILABLE",
    /// Any other refusal of the kernel.
    System = "ERR_SYSTEM",
    /// `/dev/vfio/vfio` can't be opened.
    VfioUnavailable = "ERR_VFIO_UNAVAILABLE",
    /// The kernel's VFIO lacks what this crate needs (API version 0, type1v2).
    VfioUnsupported = "ERR_VFIO_UNSUPPORTED",
    /// `/dev/iommu` can't be opened.
    IommufdUnavailable = "ERR_IOMMUFD_UNAVAILABLE",
    /// The kernel, the IOMMU or the device is not able to do it.
    Unsupported = "ERR_UNSUPPORTED",
    /// The kernel refused to set the IOMMU type of a container.
    SetIommuFailed = "ERR_SET_IOMMU_FAILED",
    /// The container has no IOMMU set: no group yet, or its last group was detached.
    ContainerEmpty = "ERR_CONTAINER_EMPTY",
    /// The kernel refused an IOMMU mapping.
    MapFailed = "ERR_MAP_FAILED",
    /// An IOMMU mapping could not be removed, or not the part that should have been.
    UnmapFailed = "ERR_UNMAP_FAILED",
    /// A VFIO group can't be opened.
    GroupOpen = "ERR_GROUP_OPEN",
    /// The kernel refused to attach a group to a container.
    GroupAttach = "ERR_GROUP_ATTACH",
    /// The kernel refused to attach a device to an address space of iommufd.
    DeviceAttach = "ERR_DEVICE_ATTACH",
    /// The kernel refused to hand out a device.
    DeviceOpen = "ERR_DEVICE_OPEN",
    /// Something still uses the device, group or container.
    DeviceInUse = "ERR_DEVICE_IN_USE",
    /// A BAR does not answer: memory decode is off, or the device sleeps.
    BarDisabled = "ERR_BAR_DISABLED",
    /// The device has no region of that index.
    NoSuchRegion = "ERR_NO_SUCH_REGION",
    /// The kernel can't reset this device.
    ResetUnsupported = "ERR_RESET_UNSUPPORTED",
    /// The device has no such interrupt, or not as many.
    InterruptUnsupported = "ERR_INTERRUPT_UNSUPPORTED",
    /// The kernel refused to set up an interrupt.
    InterruptSetup = "ERR_INTERRUPT_SETUP",
    /// The kernel handed over a structure that makes no sense.
    BadKernelData = "ERR_BAD_KERNEL_DATA",
    /// The device does not answer: its config space reads as all ones.
    BadConfigSpace = "ERR_BAD_CONFIG_SPACE",
}

/// A failure, with all that is known about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Error {
    code: ErrorCode,
    errno: Option<Errno>,
    syscall: Option<Cow<'static, str>>,
    range: Option<Range>,
    message: String,
}

/// The remedy when huge pages are unavailable (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).
const fn huge_page_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::ENODEV | Errno::EINVAL => ". This system has no huge pages of that size",
        _ => {
            ". Set huge pages aside: sysctl vm.nr_hugepages=N for the default size, any size by \
             /sys/kernel/mm/hugepages/hugepages-SIZEkB/nr_hugepages"
        }
    }
}

impl Error {
    /// A failure that this crate found itself.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            errno: None,
            syscall: None,
            range: None,
            message: message.into(),
        }
    }

    /// A failure that the kernel reported: `syscall` said `errno` while doing `what`.
    pub fn os(
        code: ErrorCode,
        errno: Errno,
        syscall: impl Into<Cow<'static, str>>,
        what: impl std::fmt::Display,
    ) -> Self {
        let syscall = syscall.into();
        let mut message = format!("{what}: {syscall} failed with {errno:?} ({})", errno.desc());
        if code == ErrorCode::HugePagesUnavailable {
            message.push_str(huge_page_remedy(errno));
        }
        Self {
            code,
            errno: Some(errno),
            syscall: Some(syscall),
            range: None,
            message,
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// What the kernel said, where it was the kernel.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// The errno's name (`EINVAL`), where there is one.
    #[must_use]
    pub fn errno_name(&self) -> Option<String> {
        self.errno.map(|errno| format!("{errno:?}"))
    }

    /// The system call that failed: `mmap`, `ioctl(VFIO_IOMMU_MAP_DMA)`.
    #[must_use]
    pub fn syscall(&self) -> Option<&str> {
        self.syscall.as_deref()
    }

    /// What the failure is about, where a call was given more than one range: IOVAs, or, for faulting
    /// in, offsets in the reservation.
    #[must_use]
    pub const fn range(&self) -> Option<Range> {
        self.range
    }

    /// What failed and where; ranges are half-open and in hex.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same failure, its text preceded by what was being done.
    #[must_use]
    pub fn context(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same failure, told of one range out of several.
    #[must_use]
    pub(crate) const fn at(mut self, range: Range) -> Self {
        self.range = Some(range);
        self
    }

    /// The same failure, its text followed by more.
    pub(crate) fn followed_by(mut self, more: impl std::fmt::Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// The same failure under another code, its text followed by more.
    pub(crate) fn recast(mut self, code: ErrorCode, more: impl std::fmt::Display) -> Self {
        self.code = code;
        self.followed_by(more)
    }
}
