/* Firmware that writes to a port again and again. */
	.code16
_start:
	mov $0x3f8, %dx
1:	out %al, %dx
	jmp 1b

	.org 0xfff0 /* the first instruction of a processor: Intel SDM volume 3, 9.1.4 */
	jmp _start
	.org 0x10000
