//! Areas of BARs as dma-bufs, in which form iommufd takes them.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::device::{Device, DeviceInner};
use super::ioctl_feature;
use crate::locked::{lock, read};
use crate::{Error, ErrorCode, Range, Result, host_page_size};

const FEATURE: &str = "ioctl(VFIO_DEVICE_FEATURE, DMA_BUF)";

/// An area of a BAR. What an IOMMU maps of it the kernel takes away when the device closes, is reset or stops decoding;
/// the dma-buf itself is good again as soon as the device answers.
#[derive(Debug)]
pub(crate) struct DmaBuf {
    fd: OwnedFd,
    region: u32,
    /// Which part, from the region's start.
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
    /// Whether the kernel can give out its BARs as dma-bufs, and the device's driver lets it.
    ///
    /// # Errors
    /// `ERR_UNSUPPORTED` where not, with the errno (`ENOTTY`: the kernel is older than 6.19; `EOPNOTSUPP`: the driver does
    /// not); `ERR_CLOSED`.
    pub fn check_dma_bufs(&self) -> Result<()> {
        self.inner
            .with_fd(ioctl_feature::probe_dma_buf)?
            .map_err(|errno| {
                let what = format!("giving out BARs of device {} as dma-bufs", self.inner.name);
                Error::os(ErrorCode::Unsupported, errno, FEATURE, what)
            })
    }
}

impl DeviceInner {
    /// The dma-buf that has a part of the device's file in it, and where in it: made when it is asked for first.
    pub(crate) fn dma_buf(&self, wanted: &Range) -> Result<(Arc<DmaBuf>, u64)> {
        let (region, area, within) = self.area_of(wanted)?;
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
                let what = format!(
                    "exporting {area} of region {region} of device {}",
                    self.name
                );
                match errno {
                    Errno::ENOTTY => Error::os(
                        ErrorCode::Unsupported,
                        errno,
                        FEATURE,
                        format!("{what} (BARs can be exported since Linux 6.19)"),
                    ),
                    Errno::EOPNOTSUPP => Error::os(ErrorCode::Unsupported, errno, FEATURE, what),
                    _ => Error::os(ErrorCode::MapFailed, errno, FEATURE, what),
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

    /// The region, and which of its mappable areas, in whole pages, has all of a part of the device's file.
    fn area_of(&self, wanted: &Range) -> Result<(u32, Range, Range)> {
        let page = host_page_size()?;
        for (index, region) in (0_u32..).zip(&self.regions) {
            let Some(region) = region else { continue };
            let Some(start) = wanted.start().checked_sub(region.file_offset) else {
                continue;
            };
            if start >= region.length {
                continue;
            }
            let within = Range::new(start, wanted.len())?;
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
                        "{within} is in no area of region {index} of device {} that can be mapped",
                        self.name
                    ),
                )),
            };
        }
        Err(Error::new(
            ErrorCode::NoSuchRegion,
            format!("device {} has no region at {wanted} of its file", self.name),
        ))
    }
}

/// The part of an area that is whole pages, if any: the kernel exports nothing else.
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
    fn what_is_exported_is_whole_pages() {
        let pages = |start, end| whole_pages(&Range::between(start, end).unwrap(), 0x1000);
        assert_eq!(pages(0, 0x3000), Range::between(0, 0x3000));
        assert_eq!(pages(0x800, 0x3800), Range::between(0x1000, 0x3000));
        assert_eq!(pages(0, 0x100), None);
        assert_eq!(pages(0x1800, 0x2800), None);
        assert_eq!(pages(u64::MAX - 1, u64::MAX), None);
    }
}
