; A driver for the virtio disk in slot 1: fills it by 4 KiB, reads each back, sleeps in HLT for each; the first half with the
; interrupt pin, the second with MSI-X. The number of the check that failed is the status.
%include "common.inc"
%include "virtio.inc"
TABLE   equ 0x4000
QUEUE   equ 0x400000            ; descriptors, then the rings
AVAIL   equ QUEUE + 0x1000
USED    equ QUEUE + 0x2000
HEADER  equ QUEUE + 0x3000
RESULT  equ QUEUE + 0x3100      ; status
DATA    equ QUEUE + 0x4000
BYTES   equ 4096
IN_     equ 0
OUT_    equ 1

        mov ebp, LAPIC
        mov ebx, BAR
        mov r12d, CONFIG
        gate 0x2d, pin_raised
        gate 0x2e, message_came
        load_idt
        mov al, 0xff            ; the 8259 is out of it
        out 0x21, al
        out 0xa1, al
        mov dword [rbp + LINT0], 0x10000
        mov dword [rbp + SVR], 0x1ff
        ioapic 0x11 + 2 * GSI, 0
        ioapic 0x10 + 2 * GSI, 0x802d   ; level

        cmp dword [r12], 0x10421af4     ; a modern disk
        check 1, e
        mov word [r12 + 4], 6           ; memory, bus master
        mov byte [rbx + STATUS], 0
        mov byte [rbx + STATUS], 3
        mov dword [rbx + 8], 1          ; VERSION_1, and nothing else
        mov dword [rbx + 12], 1
        mov byte [rbx + STATUS], 11
        test byte [rbx + STATUS], 8
        check 2, nz
        queue 0, QUEUE
        mov byte [rbx + STATUS], 15
        mov dword [rbx + TABLE], LAPIC
        mov dword [rbx + TABLE + 4], 0
        mov dword [rbx + TABLE + 8], 0x2e
        mov dword [rbx + TABLE + 12], 0

        mov rax, [rbx + DEVICE]         ; sectors
        shr rax, 3
        mov [rounds], eax
        shr eax, 1
        mov [half], eax
        xor r13d, r13d                  ; round
        xor r15d, r15d                  ; requests done
round:  cmp r13d, [half]
        jne .io
        call enable_messages
.io:    mov edi, DATA                   ; a pattern of the round
        mov ecx, BYTES / 4
        mov eax, r13d
.fill:  imul eax, eax, 1664525
        add eax, 1013904223
        stosd
        loop .fill
        mov r10d, eax                   ; its last word
        mov r8d, OUT_
        call request
        mov edi, DATA                   ; gone
        mov ecx, BYTES / 8
        xor eax, eax
        rep stosq
        mov r8d, IN_
        call request
        cmp [DATA + BYTES - 4], r10d
        check 3, e
        mov eax, r13d
        imul eax, eax, 1664525
        add eax, 1013904223
        cmp [DATA], eax
        check 4, e
        inc r13d
        mov eax, [rounds]               ; two requests in each, and half of them by each way
        cmp r13d, eax
        jb round
        cmp [pins], eax
        check 5, e
        cmp [messages], eax
        check 6, e
        print token
        finish 0

; one request of type r8d for the sectors of the round; returns once it is done
request:
        mov [HEADER], r8d
        mov dword [HEADER + 4], 0
        mov eax, r13d
        shl eax, 3
        mov [HEADER + 8], rax
        mov byte [RESULT], 0xff
        mov qword [QUEUE], HEADER
        mov dword [QUEUE + 8], 16
        mov dword [QUEUE + 12], 0x10001         ; next is 1
        mov qword [QUEUE + 16], DATA
        mov dword [QUEUE + 24], BYTES
        mov eax, 0x20001                        ; next is 2
        cmp r8d, IN_
        jne .known
        or eax, 2                               ; for the device to write
.known: mov [QUEUE + 28], eax
        mov qword [QUEUE + 32], RESULT
        mov dword [QUEUE + 40], 1
        mov dword [QUEUE + 44], 2
        mov eax, r15d
        and eax, 15
        mov word [AVAIL + 4 + rax * 2], 0
        inc r15d
        mov [AVAIL + 2], r15w
        mov word [rbx + NOTIFY], 0
.sleep: sti
        hlt
        cli
        cmp [USED + 2], r15w
        jne .sleep
        cmp byte [RESULT], 0
        check 7, e
        ret

enable_messages:
        movzx eax, byte [r12 + 0x34]
.look:  cmp byte [r12 + rax], 0x11
        je .found
        movzx eax, byte [r12 + rax + 1]
        jmp .look
.found: mov word [r12 + rax + 2], 0x8000
        mov word [rbx + 22], 0
        mov word [rbx + 26], 0
        ret

pin_raised:
        push rax
        mov al, [rbx + ISR]                     ; takes the pin down
        inc dword [pins]
        mov dword [rbp + EOI], 0
        pop rax
        iretq

message_came:
        inc dword [messages]
        mov dword [rbp + EOI], 0
        iretq

failed: mov al, r14b
        out DEBUGEXIT, al
        jmp $

        library
        interrupt_table
pins:   dd 0
messages: dd 0
rounds: dd 0
half:   dd 0
token:  db "disk: OK", 10, 0
