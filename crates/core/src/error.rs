//! The error type of this crate: a stable code, the kernel's errno, the system call, and a message.

use std::borrow::Cow;

use nix::errno::Errno;

use crate::Range;

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// The stable name of a kind of error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $variant,)+ }

        impl ErrorCode {
            /// Returns the name that callers compare: `ERR_…`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

codes! {
    /// An argument does not have a valid value.
    InvalidArgument = "ERR_INVALID_ARGUMENT",
    /// A range ends beyond the reservation, file or region, or wraps around 2^64.
    OutOfRange = "ERR_OUT_OF_RANGE",
    /// An address, length or offset is not a multiple of the page or access size.
    Unaligned = "ERR_UNALIGNED",
    /// A range of length zero.
    EmptyRange = "ERR_EMPTY_RANGE",
    /// An object that the call requires is closed.
    Closed = "ERR_CLOSED",
    /// A lease, usually that of an IOMMU mapping, holds the range.
    VaInUse = "ERR_VA_IN_USE",
    /// Nothing is mapped in a part of the range.
    VaNotMapped = "ERR_VA_NOT_MAPPED",
    /// The process may not reserve that much address space.
    AddressSpaceLimit = "ERR_ADDRESS_SPACE_LIMIT",
    /// The memory of a range cannot be accessed: past the end of its file, read-only, or a BAR.
    MemoryFault = "ERR_MEMORY_FAULT",
    /// This crate does not support the system's page size.
    PageSize = "ERR_PAGE_SIZE",
    /// The process or the virtual machine has reached its limit of mappings.
    MappingLimit = "ERR_MAPPING_LIMIT",
    /// The range overlaps an existing mapping.
    Overlap = "ERR_OVERLAP",
    /// No huge pages of that size are free.
    HugePagesUnavailable = "ERR_HUGE_PAGES_UNAVAILABLE",
    /// The process at the other end of a socket has closed it, or has ended.
    PeerClosed = "ERR_PEER_CLOSED",
    /// The kernel reported another error.
    System = "ERR_SYSTEM",
    /// `/dev/vfio/vfio` cannot be opened.
    VfioUnavailable = "ERR_VFIO_UNAVAILABLE",
    /// The kernel's VFIO lacks a required feature (API version 0, type1v2).
    VfioUnsupported = "ERR_VFIO_UNSUPPORTED",
    /// `/dev/iommu` cannot be opened.
    IommufdUnavailable = "ERR_IOMMUFD_UNAVAILABLE",
    /// `/dev/kvm` cannot be opened.
    KvmUnavailable = "ERR_KVM_UNAVAILABLE",
    /// The kernel's KVM lacks a required feature.
    KvmUnsupported = "ERR_KVM_UNSUPPORTED",
    /// A virtual processor executes the guest.
    CpuRunning = "ERR_CPU_RUNNING",
    /// The kernel, the IOMMU or the device does not support the operation.
    Unsupported = "ERR_UNSUPPORTED",
    /// The kernel refused to set the IOMMU type of a container.
    SetIommuFailed = "ERR_SET_IOMMU_FAILED",
    /// The container has no IOMMU set: no group yet, or its last group was detached.
    ContainerEmpty = "ERR_CONTAINER_EMPTY",
    /// The kernel refused an IOMMU mapping.
    MapFailed = "ERR_MAP_FAILED",
    /// The kernel did not remove an IOMMU mapping, or removed more or less than requested.
    UnmapFailed = "ERR_UNMAP_FAILED",
    /// A VFIO group cannot be opened.
    GroupOpen = "ERR_GROUP_OPEN",
    /// The kernel refused to attach a group to a container.
    GroupAttach = "ERR_GROUP_ATTACH",
    /// The kernel refused to attach a device to an address space of iommufd.
    DeviceAttach = "ERR_DEVICE_ATTACH",
    /// The kernel refused to open a device.
    DeviceOpen = "ERR_DEVICE_OPEN",
    /// Something still uses the device, group or container.
    DeviceInUse = "ERR_DEVICE_IN_USE",
    /// The BAR is disabled: memory decode is off, or the device is in D3hot.
    BarDisabled = "ERR_BAR_DISABLED",
    /// The device has no region of that index.
    NoSuchRegion = "ERR_NO_SUCH_REGION",
    /// The kernel cannot reset this device.
    ResetUnsupported = "ERR_RESET_UNSUPPORTED",
    /// The device does not have the interrupt, or has fewer vectors.
    InterruptUnsupported = "ERR_INTERRUPT_UNSUPPORTED",
    /// The kernel refused to set up an interrupt.
    InterruptSetup = "ERR_INTERRUPT_SETUP",
    /// The device did not change its migration state, or its state does not allow the call.
    MigrationState = "ERR_MIGRATION_STATE",
    /// The device or its driver rejected migration data, or failed to return it.
    MigrationData = "ERR_MIGRATION_DATA",
    /// The kernel returned an inconsistent structure.
    BadKernelData = "ERR_BAD_KERNEL_DATA",
    /// The device does not respond: its config space reads as all ones.
    BadConfigSpace = "ERR_BAD_CONFIG_SPACE",
}

/// An error with its code, errno, system call, message and range.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Error {
    code: ErrorCode,
    errno: Option<Errno>,
    syscall: Option<Cow<'static, str>>,
    range: Option<Range>,
    message: String,
}

/// Returns the remedy for unavailable huge pages (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).
const fn huge_page_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::ENODEV | Errno::EINVAL => ". This system does not support huge pages of that size",
        _ => {
            ". Reserve huge pages: sysctl vm.nr_hugepages=N for the default size, any size by \
             /sys/kernel/mm/hugepages/hugepages-SIZEkB/nr_hugepages"
        }
    }
}

impl Error {
    /// Creates an error that this crate detected.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            errno: None,
            syscall: None,
            range: None,
            message: message.into(),
        }
    }

    /// Creates an error for `syscall`, which failed with `errno` during `operation`.
    pub fn os(
        code: ErrorCode,
        errno: Errno,
        syscall: impl Into<Cow<'static, str>>,
        operation: impl std::fmt::Display,
    ) -> Self {
        let syscall = syscall.into();
        let mut message = format!(
            "{operation}: {syscall} failed with {errno:?} ({})",
            errno.desc()
        );
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

    /// The kernel's errno, if a system call failed.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// The errno's name (`EINVAL`), if a system call failed.
    #[must_use]
    pub fn errno_name(&self) -> Option<String> {
        self.errno.map(|errno| format!("{errno:?}"))
    }

    /// The system call that failed: `mmap`, `ioctl(VFIO_IOMMU_MAP_DMA)`.
    #[must_use]
    pub fn syscall(&self) -> Option<&str> {
        self.syscall.as_deref()
    }

    /// The range that failed, if the call had several. Its addresses are IOVAs, or offsets in the reservation when
    /// faulting in.
    #[must_use]
    pub const fn range(&self) -> Option<Range> {
        self.range
    }

    /// The message. Its ranges are half-open and in hex.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts the operation in front of the message.
    #[must_use]
    pub fn context(mut self, operation: impl std::fmt::Display) -> Self {
        self.message = format!("{operation}: {}", self.message);
        self
    }

    /// Adds the range that failed.
    #[must_use]
    pub(crate) const fn at(mut self, range: Range) -> Self {
        self.range = Some(range);
        self
    }

    /// Appends text to the message.
    pub(crate) fn followed_by(mut self, more: impl std::fmt::Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// Replaces the code, and appends text to the message.
    pub(crate) fn recast(mut self, code: ErrorCode, more: impl std::fmt::Display) -> Self {
        self.code = code;
        self.followed_by(more)
    }
}
