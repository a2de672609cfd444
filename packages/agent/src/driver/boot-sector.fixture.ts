// SPDX-License-Identifier: Apache-2.0
/**
 * The smallest guest that does what tests need: it says so on its serial line when it is up, echoes
 * what is typed, powers off on Ctrl-D and when its power button is pressed (q35's ACPI registers at
 * 0x600, as SeaBIOS sets them). It is up in under a second without KVM.
 *
 *       cli; xor ax,ax; mov ds,ax; mov ss,ax; mov sp,0x7c00; sti
 *       mov dx,0x602; mov ax,0x100; out dx,ax        ; PM1 enable: power button
 *       mov si,msg
 * print lodsb; test al,al; jz wait; call putc; jmp print
 * wait  hlt                                          ; until the BIOS's timer, 18 times a second
 * poll  mov dx,0x600; in ax,dx; test ah,1; jnz off   ; PM1 status
 *       mov dx,0x3fd; in al,dx; test al,1; jz wait   ; COM1 line status
 *       mov dx,0x3f8; in al,dx; cmp al,4; je off; call putc; jmp poll
 * off   mov dx,0x604; mov ax,0x2000; out dx,ax; jmp wait  ; PM1 control: S5
 * putc  mov bl,al; mov dx,0x3fd
 * 1:    in al,dx; test al,0x20; jz 1b; mov al,bl; mov dx,0x3f8; out dx,al; ret
 * msg   "busbar guest up\r\n\0"
 */
const CODE =
  'fa31c08ed88ed0bc007cfbba0206b80001efbe587cac84c07405e82a00ebf6f4ba0006edf6c4017515bafd03eca80174ee' +
  'baf803ec3c047405e80b00ebe2ba0406b80020efebd888c3bafd03eca82074fb88d8baf803eec3' +
  '6275736261722067756573742075700d0a00';

export const GUEST_GREETING = 'busbar guest up';
/** Makes the guest power off by itself. */
export const GUEST_POWER_OFF = Uint8Array.of(4);

/** A disk image with nothing but that. */
export function bootSectorDisk(): Buffer {
  const disk = Buffer.alloc(1024 * 1024);
  disk.write(CODE, 'hex');
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}
