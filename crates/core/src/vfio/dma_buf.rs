//! Areas of BARs exported as dma-bufs, which iommufd maps.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::device::{Device, DeviceInner};
use super::ioctl_feature;
use crate::locked::{lock, read};
use crate::{Error, ErrorCode, Range, Result, host_page_size};

const FEATURE: &str = "ioctl(VFIO_DEVICE_FEATURE, DMA_BUF)";

/// An exported area of a BAR. The kernel revokes its IOMMU mappings when the device closes, is reset or stops
/// decoding; the dma-buf itself is valid again when the BAR is enabled.
#[derive(Debug)]
pub(crate) struct DmaBuf {
    fd: OwnedFd,
    region: u32,
    /// The area, from the region's start.
    area: Range,
    device: String,
}

impl DmaBuf {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, area, .. } = self;
        write!(f, "{area} of region {region} of device {}", self.device)
    }
}

impl Device {
    /// Checks that the kernel and the device's driver can export its BARs as dma-bufs.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` with the errno if they cannot (`ENOTTY`: the kernel is older than 6.19; `EOPNOTSUPP`: the
    /// driver does not support it); `ERR_CLOSED`.
    pub fn check_dma_bufs(&self) -> Result<()> {
        self.inner
            .with_fd(ioctl_feature::probe_dma_buf)?
            .map_err(|errno| {
                let operation = format!("exporting BARs of device {} as dma-bufs", self.inner.name);
                Error::os(ErrorCode::Unsupported, errno, FEATURE, operation)
            })
    }
}

impl DeviceInner {
    /// Returns the dma-buf that contains a part of the device's file, and the offset in it. Exports it at the first
    /// use.
    pub(crate) fn dma_buf(&self, requested: &Range) -> Result<(Arc<DmaBuf>, u64)> {
        let (region, area, within) = self.area_of(requested)?;
        let start = within.start().saturating_sub(area.start());
        let open = read(&self.open);
        let open = self.expect_open(open.as_ref())?;
        let mut made = lock(&open.dma_bufs);
        if let Some(known) = made
            .iter()
            .find(|one| one.region == region && one.area == area)
        {
            return Ok((Arc::clone(known), start));
        }
        let fd =
            ioctl_feature::export_dma_buf(open.fd.as_fd(), region, &area).map_err(|errno| {
                let operation = format!(
                    "exporting {area} of region {region} of device {}",
                    self.name
                );
                match errno {
                    Errno::ENOTTY => Error::os(
                        ErrorCode::Unsupported,
                        errno,
                        FEATURE,
                        format!("{operation} (BARs can be exported since Linux 6.19)"),
                    ),
                    Errno::EOPNOTSUPP => {
                        Error::os(ErrorCode::Unsupported, errno, FEATURE, operation)
                    }
                    _ => Error::os(ErrorCode::MapFailed, errno, FEATURE, operation),
                }
            })?;
        let buffer = Arc::new(DmaBuf {
            fd,
            region,
            area,
            device: self.name.clone(),
        });
        made.push(Arc::clone(&buffer));
        Ok((buffer, start))
    }

    /// Returns the region, and its mappable area in whole pages that contains a part of the device's file.
    fn area_of(&self, requested: &Range) -> Result<(u32, Range, Range)> {
        let page = host_page_size()?;
        for (index, region) in (0_u32..).zip(&self.regions) {
            let Some(region) = region else { continue };
            let Some(start) = requested.start().checked_sub(region.file_offset) else {
                continue;
            };
            if start >= region.length {
                continue;
            }
            let within = Range::new(start, requested.len())?;
            let area = region
                .mmap_areas
                .iter()
                .filter_map(|area| whole_pages(area, page))
                .find(|area| area.contains(&within));
            return match area {
                Some(area) => Ok((index, area, within)),
                None => Err(Error::new(
                    ErrorCode::OutOfRange,
                    format!(
                        "{within} is not in a mappable area of region {index} of device {}",
                        self.name
                    ),
                )),
            };
        }
        Err(Error::new(
            ErrorCode::NoSuchRegion,
            format!(
                "device {} has no region at {requested} of its file",
                self.name
            ),
        ))
    }
}

/// Returns the whole pages of an area, if any: the kernel exports nothing else.
fn whole_pages(area: &Range, page: u64) -> Option<Range> {
    let down = |at: u64| at.saturating_sub(at.checked_rem(page).unwrap_or(0));
    let start = area.start().checked_add(page.saturating_sub(1)).map(down)?;
    Range::between(start, down(area.end()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn exports_whole_pages() {
        let pages = |start, end| whole_pages(&Range::between(start, end).unwrap(), 0x1000);
        assert_eq!(pages(0, 0x3000), Range::between(0, 0x3000));
        assert_eq!(pages(0x800, 0x3800), Range::between(0x1000, 0x3000));
        assert_eq!(pages(0, 0x100), None);
        assert_eq!(pages(0x1800, 0x2800), None);
        assert_eq!(pages(u64::MAX - 1, u64::MAX), None);
    }
}
