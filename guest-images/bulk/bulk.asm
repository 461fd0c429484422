; Asks the virtio disk in slot 1 for more than there is time for: one request to read 250 times the same 8 MiB of RAM full,
; offered 128 times, 250 GiB in all. Prints its token before it tells the device.
%include "common.inc"
CONFIG  equ 0xb0008000          ; slot 1, function 0, in memory
BAR     equ 0xc0000000
NOTIFY  equ 0x3000
STATUS  equ 20
QUEUE   equ 0x400000            ; descriptors, then the rings
AVAIL   equ QUEUE + 0x1000
USED    equ QUEUE + 0x2000
HEADER  equ QUEUE + 0x3000
RESULT  equ QUEUE + 0x3100      ; status
DATA    equ 0x500000
BYTES   equ 8 << 20
PARTS   equ 250
OFFERS   equ 128

        mov ebx, BAR
        mov r12d, CONFIG
        mov word [r12 + 4], 6           ; memory, bus master
        mov byte [rbx + STATUS], 0
        mov byte [rbx + STATUS], 3
        mov dword [rbx + 8], 1          ; VERSION_1, and nothing else
        mov dword [rbx + 12], 1
        mov byte [rbx + STATUS], 11
        mov word [rbx + 22], 0
        mov word [rbx + 24], 256
        mov dword [rbx + 32], QUEUE
        mov dword [rbx + 36], 0
        mov dword [rbx + 40], AVAIL
        mov dword [rbx + 44], 0
        mov dword [rbx + 48], USED
        mov dword [rbx + 52], 0
        mov word [rbx + 28], 1
        mov byte [rbx + STATUS], 15

        mov qword [HEADER], 0           ; read
        mov qword [HEADER + 8], 0       ; from the first sector on
        mov edi, QUEUE
        mov qword [rdi], HEADER
        mov dword [rdi + 8], 16
        mov dword [rdi + 12], 0x10001   ; next is 1
        mov ecx, 1
.part:  add edi, 16
        mov qword [rdi], DATA
        mov dword [rdi + 8], BYTES
        mov word [rdi + 12], 3          ; for the device to write, and there is a next one
        inc ecx
        mov [rdi + 14], cx
        cmp ecx, PARTS
        jbe .part
        add edi, 16
        mov qword [rdi], RESULT
        mov dword [rdi + 8], 1
        mov dword [rdi + 12], 2
        mov word [AVAIL + 2], OFFERS     ; all of them descriptor 0
        print token
        mov word [rbx + NOTIFY], 0
.wait:  cmp word [USED + 2], OFFERS
        jne .wait
        mov al, [RESULT]
        out DEBUGEXIT, al
        jmp $

        library
token:  db "bulk: asked", 10, 0
