/**
 * Registers of PCI config space: offsets and bits, with the names of Linux.
 *
 * Names: include/uapi/linux/pci_regs.h, without the prefix PCI_. Meaning: PCI Express Base Specification, chapter 7;
 * advanced features (AF): PCI-SIG's engineering change notice of 2006 for conventional PCI.
 */

/** Bytes of conventional config space. */
export const CFG_SPACE_SIZE = 0x100;
/** Bytes of config space of a PCI Express function. */
export const CFG_SPACE_EXP_SIZE = 0x1000;

// The header of type 0: functions that are not bridges.

/** 2 bytes each, except for the class (3 bytes, from 0x09 on) and the revision before it (1). */
export const VENDOR_ID = 0x00;
export const DEVICE_ID = 0x02;
export const REVISION_ID = 0x08;
export const CLASS_CODE = 0x09;
export const SUBSYSTEM_VENDOR_ID = 0x2c;
export const SUBSYSTEM_ID = 0x2e;

/** 2 bytes. */
export const COMMAND = 0x04;
/** The function decodes I/O addresses. */
export const COMMAND_IO = 0x0001;
/** The function decodes memory addresses. */
export const COMMAND_MEMORY = 0x0002;
/** The function may do DMA and send messages. */
export const COMMAND_MASTER = 0x0004;
/** The function must not assert its pin. */
export const COMMAND_INTX_DISABLE = 0x0400;

/** 2 bytes. */
export const STATUS = 0x06;
/** The function asserts its pin, or would if Command did not disable it. */
export const STATUS_INTERRUPT = 0x0008;
/** {@link CAPABILITY_LIST} is valid. */
export const STATUS_CAP_LIST = 0x0010;

/** 1 byte. */
export const HEADER_TYPE = 0x0e;
export const HEADER_TYPE_MASK = 0x7f;
/** The device has other functions than this one. */
export const HEADER_TYPE_MFD = 0x80;
export const HEADER_TYPE_BRIDGE = 0x01;
export const HEADER_TYPE_CARDBUS = 0x02;

/** 1 byte: starts the built-in self test. */
export const BIST = 0x0f;

/** Six registers of 4 bytes. */
export const BASE_ADDRESS_0 = 0x10;
export const BASE_ADDRESS_COUNT = 6;
export const BASE_ADDRESS_SPACE_IO = 0x01;
export const BASE_ADDRESS_MEM_TYPE_MASK = 0x06;
/** The next register holds the upper half of the address. */
export const BASE_ADDRESS_MEM_TYPE_64 = 0x04;
export const BASE_ADDRESS_MEM_PREFETCH = 0x08;
/** Address bits of the lower register of a memory BAR. It includes bit 31: use unsigned arithmetic. */
export const BASE_ADDRESS_MEM_MASK = 0xfffffff0;

/** 4 bytes. */
export const ROM_ADDRESS = 0x30;
export const ROM_ADDRESS_ENABLE = 0x01;

/** 1 byte: offset of the first capability, in headers of type 0 and 1. */
export const CAPABILITY_LIST = 0x34;
/** The same in the header of a CardBus bridge (Linux `PCI_CB_CAPABILITY_LIST`). */
export const CAPABILITY_LIST_CARDBUS = 0x14;
/** 1 byte of scratch space for the guest. */
export const INTERRUPT_LINE = 0x3c;
/** 1 byte: 0 for no pin, 1 for INTA to 4 for INTD. */
export const INTERRUPT_PIN = 0x3d;
/** Bytes of the header. Capabilities follow it. */
export const STD_HEADER_SIZEOF = 0x40;

/** Bridges alone. 1 byte each: the bus above the bridge, the one below it, the highest one below it. */
export const PRIMARY_BUS = 0x18;

// Capabilities: identifier, then the offset of the next one. Offsets count from the capability.

export const CAP_LIST_NEXT = 1;
/**
 * Bits of a pointer to a capability. The two low ones are reserved, and software masks them (PCI Local Bus 3.0, 6.7;
 * PCI Express Base Specification, 7.6.3; Linux `PCI_EXT_CAP_NEXT`).
 */
export const CAP_POINTER_MASK = 0xffc;
export const CAP_SIZEOF = 2;
export const CAP_ID_PM = 0x01;
export const CAP_ID_VPD = 0x03;
export const CAP_ID_MSI = 0x05;
export const CAP_ID_VNDR = 0x09;
export const CAP_ID_SSVID = 0x0d;
export const CAP_ID_EXP = 0x10;
export const CAP_ID_MSIX = 0x11;
export const CAP_ID_AF = 0x13;

/** Power management: capabilities (PMC). 2 bytes. */
export const PM_PMC = 2;
export const PM_CAP_D1 = 0x0200;
export const PM_CAP_D2 = 0x0400;
/** Power management: control and status (PMCSR). 2 bytes. */
export const PM_CTRL = 4;
/** The power state: 0 for D0 to 3 for D3hot. */
export const PM_CTRL_STATE_MASK = 0x0003;
export const PM_SIZEOF = 8;

/** MSI: message control. 2 bytes. */
export const MSI_FLAGS = 2;
export const MSI_FLAGS_ENABLE = 0x0001;
/** How many messages the function supports, as a power of two. */
export const MSI_FLAGS_QMASK = 0x000e;
export const MSI_FLAGS_QMASK_SHIFT = 1;
/** How many messages are enabled, as a power of two. */
export const MSI_FLAGS_QSIZE = 0x0070;
export const MSI_FLAGS_QSIZE_SHIFT = 4;
export const MSI_FLAGS_64BIT = 0x0080;
export const MSI_FLAGS_MASKBIT = 0x0100;
export const MSI_ADDRESS_LO = 4;
/** Upper half of the address, if the function supports 64-bit message addresses; otherwise the data. */
export const MSI_ADDRESS_HI = 8;
/** 32 messages: the largest power of two that is not reserved. */
export const MSI_MOST_MESSAGES_LOG2 = 5;

/** MSI-X: message control. 2 bytes. */
export const MSIX_FLAGS = 2;
/** Number of vectors, less 1. */
export const MSIX_FLAGS_QSIZE = 0x07ff;
export const MSIX_FLAGS_MASKALL = 0x4000;
export const MSIX_FLAGS_ENABLE = 0x8000;
/** Offset of the table in a BAR. The lowest bits are the BAR number. 4 bytes. */
export const MSIX_TABLE = 4;
/** Offset of the pending bits, in the same format. */
export const MSIX_PBA = 8;
/** Bits of the BAR number. */
export const MSIX_BIR = 0x07;
export const MSIX_SIZEOF = 12;
/** Bytes of one entry of the table. */
export const MSIX_ENTRY_SIZE = 16;

/** Vital product data, and subsystem IDs of a bridge. */
export const VPD_SIZEOF = 8;
export const SSVID_SIZEOF = 8;
/** Vendor-specific: its length. 1 byte. */
export const VNDR_LENGTH = 2;
export const VNDR_LEAST_SIZEOF = 3;

/** PCI Express: capabilities register. 2 bytes. */
export const EXP_FLAGS = 2;
export const EXP_FLAGS_VERS = 0x000f;
export const EXP_FLAGS_TYPE = 0x00f0;
export const EXP_FLAGS_TYPE_SHIFT = 4;
export const EXP_TYPE_ENDPOINT = 0x0;
export const EXP_TYPE_LEG_END = 0x1;
export const EXP_TYPE_RC_END = 0x9;
/** PCI Express: device capabilities. 4 bytes. */
export const EXP_DEVCAP = 4;
/** The function can be reset by {@link EXP_DEVCTL_BCR_FLR}. */
export const EXP_DEVCAP_FLR = 0x10000000;
/** PCI Express: device control. 2 bytes. */
export const EXP_DEVCTL = 8;
export const EXP_DEVCTL_BCR_FLR = 0x8000;
/** PCI Express: capabilities (4 bytes), control and status (2 each) of the link. */
export const EXP_LNKCAP = 0x0c;
export const EXP_LNKCTL = 0x10;
export const EXP_LNKSTA = 0x12;
/** The same in version 2. */
export const EXP_LNKCAP2 = 0x2c;
export const EXP_LNKCTL2 = 0x30;
/** A link of 2.5 GT/s with one lane, in capabilities and status. */
export const EXP_LNK_2_5GT = 0x0001;
export const EXP_LNK_X1 = 0x0010;
/** Length of the registers that every PCI Express function has. */
export const EXP_LEAST_SIZEOF = 12;
/** Bytes of a capability of version 1 that has link registers. */
export const EXP_ENDPOINT_SIZEOF_V1 = 0x14;
/** Bytes of a capability of version 2. */
export const EXP_V2_SIZEOF = 0x3c;

/** Advanced features: capabilities. 1 byte. */
export const AF_CAP = 3;
export const AF_CAP_FLR = 0x02;
/** Advanced features: control. 1 byte. */
export const AF_CTRL = 4;
export const AF_CTRL_FLR = 0x01;
export const AF_SIZEOF = 6;

// Extended capabilities: identifier (16 bits), version (4), offset of the next one (12).

export const EXT_CAP_SIZEOF = 4;
export const EXT_CAP_ID_ACS = 0x0d;
export const EXT_CAP_ID_ARI = 0x0e;
export const EXT_CAP_ID_ATS = 0x0f;
export const EXT_CAP_ID_SRIOV = 0x10;
export const EXT_CAP_ID_REBAR = 0x15;
export const EXT_CAP_ID_VF_REBAR = 0x24;
/** Access control services: supported services. 2 bytes. */
export const ACS_CAP = 4;
/** Access control services: enabled services. 2 bytes. */
export const ACS_CTRL = 6;
export const ARI_SIZEOF = 8;
/** Address translation services: control. 2 bytes. */
export const ATS_CTRL = 6;
export const ATS_CTRL_ENABLE = 0x8000;
export const SRIOV_SIZEOF = 0x40;
/** SR-IOV: control. 2 bytes. */
export const SRIOV_CTRL = 8;
/** The virtual functions decode memory addresses. */
export const SRIOV_CTRL_VF_MSE = 0x0008;
/** Resizable BAR: the first entry. An entry has 8 bytes: capability and control of a BAR. */
export const REBAR_CAP = 4;
/** Resizable BAR: the first control register, which contains the number of BARs. */
export const REBAR_CTRL = 8;
export const REBAR_CTRL_NBAR_MASK = 0xe0;
export const REBAR_CTRL_NBAR_SHIFT = 5;
export const REBAR_ENTRY_SIZE = 8;
