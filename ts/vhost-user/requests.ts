/**
 * Numbers of the vhost-user protocol.
 *
 * They are from QEMU, `docs/interop/vhost-user.rst`.
 */

/** The requests that this front end makes, by number. @internal */
export const REQUESTS = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
} as const;

/** @internal */
export type RequestName = keyof typeof REQUESTS;

/** Protocol features that this front end uses, as bits. @internal */
export const PROTOCOL = {
  MQ: 1n << 0n,
  REPLY_ACK: 1n << 3n,
  CONFIG: 1n << 9n,
  INFLIGHT_SHMFD: 1n << 12n,
  RESET_DEVICE: 1n << 13n,
  CONFIGURE_MEM_SLOTS: 1n << 15n,
} as const;

/** Feature bits with a meaning for the protocol. @internal */
export const FEATURE = {
  /** `VHOST_F_LOG_ALL`: the back end logs the pages that it writes. */
  LOG_ALL: 1n << 26n,
  /** `VHOST_USER_F_PROTOCOL_FEATURES`: there are protocol features, and queues have to be enabled. */
  PROTOCOL_FEATURES: 1n << 30n,
  /** `VIRTIO_F_VERSION_1` */
  VERSION_1: 1n << 32n,
  /** `VIRTIO_F_ACCESS_PLATFORM`: ring addresses are IOVAs, translated by messages. */
  ACCESS_PLATFORM: 1n << 33n,
  /** `VIRTIO_F_RING_PACKED`: rings of another format. */
  RING_PACKED: 1n << 34n,
} as const;

/** Bits of the flags of a message. @internal */
export const FLAGS = { version: 1, versionMask: 3, reply: 4, needReply: 8 } as const;

/** The most regions in a message of SET_MEM_TABLE (`VHOST_MEMORY_BASELINE_NREGIONS` of QEMU). @internal */
export const TABLE_REGIONS = 8;

/** Set in the number of a queue: the message has no descriptor. @internal */
export const NO_DESCRIPTOR = 1n << 8n;
