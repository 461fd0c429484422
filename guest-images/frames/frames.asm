; A driver for the network device in slot 1: sends ROUNDS frames that differ, one after the other, and sleeps in HLT for the answer to each,
; which must be the frame's first words, inverted. The number of the check that failed is the status.
%include "common.inc"
%include "virtio.inc"
RX      equ 0x400000            ; descriptors, available, used: a page each
TX      equ 0x403000
OUT_    equ 0x406000            ; a frame that is sent, and the page behind it
IN_     equ 0x408000
HEADER  equ 12                  ; struct virtio_net_hdr
BYTES   equ 4096 - 16           ; of a frame
ANSWER  equ 64
ROUNDS  equ 256

        mov ebp, LAPIC
        mov ebx, BAR
        mov r12d, CONFIG
        gate 0x2d, pin_raised
        load_idt
        mov al, 0xff            ; the 8259 is out of it
        out 0x21, al
        out 0xa1, al
        mov dword [rbp + LINT0], 0x10000
        mov dword [rbp + SVR], 0x1ff
        ioapic 0x11 + 2 * GSI, 0
        ioapic 0x10 + 2 * GSI, 0x802d   ; level

        cmp dword [r12], 0x10411af4     ; a modern network device
        check 1, e
        mov word [r12 + 4], 6           ; memory, bus master
        mov byte [rbx + STATUS], 0
        mov byte [rbx + STATUS], 3
        mov dword [rbx + 8], 0
        mov dword [rbx + 12], 1 << 16   ; STATUS
        mov dword [rbx + 8], 1          ; VERSION_1
        mov dword [rbx + 12], 1
        mov byte [rbx + STATUS], 11
        test byte [rbx + STATUS], 8
        check 2, nz
        queue 0, RX
        queue 1, TX
        mov byte [rbx + STATUS], 15
        test word [rbx + DEVICE + 6], 1 ; the link is up
        check 3, nz

        mov qword [RX], IN_
        mov dword [RX + 8], 2048
        mov dword [RX + 12], 2          ; for the device to write
        mov qword [TX], OUT_
        mov dword [TX + 8], HEADER + BYTES
        mov dword [TX + 12], 0
        mov word [TX + 0x1000], 1       ; no interrupt when a frame is gone
        xor r13d, r13d                  ; round
round:  mov eax, r13d                   ; a buffer for the answer
        and eax, 15
        mov word [RX + 0x1004 + rax * 2], 0
        lea eax, [r13 + 1]
        mov [RX + 0x1002], ax
        mov word [rbx + NOTIFY], 0
        mov edi, OUT_ + HEADER          ; a pattern of the round
        mov ecx, BYTES / 4
        mov eax, r13d
.fill:  imul eax, eax, 1664525
        add eax, 1013904223
        stosd
        loop .fill
        mov eax, r13d
        and eax, 15
        mov word [TX + 0x1004 + rax * 2], 0
        lea eax, [r13 + 1]
        mov [TX + 0x1002], ax
        mov word [rbx + NOTIFY + 4], 1
.sleep: sti
        hlt
        cli
        lea eax, [r13 + 1]
        cmp [RX + 0x2002], ax
        jne .sleep
        cmp [TX + 0x2002], ax
        check 4, e
        mov eax, r13d
        and eax, 15
        cmp dword [RX + 0x2008 + rax * 8], HEADER + ANSWER
        check 5, e
        cmp word [IN_ + 10], 1          ; num_buffers
        check 6, e
        mov ecx, ANSWER / 4
        mov eax, r13d
        mov esi, IN_ + HEADER
.look:  imul eax, eax, 1664525
        add eax, 1013904223
        mov edx, eax
        not edx
        cmp [rsi], edx
        check 7, e
        add esi, 4
        dec ecx
        jnz .look
        inc r13d
        cmp r13d, ROUNDS
        jb round
        print token
        finish 0

pin_raised:
        push rax
        mov al, [rbx + ISR]             ; takes the pin down
        mov dword [rbp + EOI], 0
        pop rax
        iretq

failed: mov al, r14b
        out DEBUGEXIT, al
        jmp $

        library
        interrupt_table
token:  db "frames: OK", 10, 0
