; Storms of what no sane driver does, from a generator with a fixed seed: ports, memory-mapped registers of devices, configuration
; space, descriptors and rings of the virtio devices. The VMM has to stand it, and both runs see the same.
%include "common.inc"
ECAM    equ 0xb0000000
BAR     equ 0xc0000000
DEVICES equ 2                   ; a disk, a console: what they write is always the same
BAR_BYTES equ 0x8000
STATUS  equ 20
QUEUE   equ 0x400000            ; descriptors, available, used: a page each
ROUNDS  equ 60
PATTERN equ 0x5a5a5a5a
KEPT    equ 0x700000            ; a page that no descriptor may reach: it is in none

        mov rdi, KEPT
        mov ecx, 512
        mov rax, PATTERN
        rep stosq
        mov r13d, ROUNDS
        mov r12d, 12345         ; the generator's state
        mov ebp, ECAM
round:  mov r15d, 40
.ports: call random
        mov edx, eax
        shr edx, 16
        cmp edx, 0x2000         ; not: the ends of a run (0xf4, 0x604, 0xcf9, 8042), its output, and time sites (0xf5)
        jae .any
        cmp edx, 0x100
        jb .skip
        cmp edx, 0x3f8
        jb .any
        cmp edx, 0x400
        jb .skip
        cmp edx, 0x600
        jb .any
        cmp edx, 0xd00
        jb .skip
.any:   call random
        test r12d, 0x1000
        jz .in
        out dx, al
        out dx, ax
        out dx, eax
        jmp .skip
.in:    in al, dx
        in eax, dx
.skip:  dec r15d
        jnz .ports

        mov r15d, 40
.config:
        call random
        and eax, 0x3fff         ; of slots 0 to 3
        mov ebx, eax
        shr ebx, 12
        shl ebx, 15
        and eax, 0xffc
        lea rbx, [rbx + rax]
        add rbx, rbp
        call random
        mov ecx, [rbx]
        lea rdx, [rbp + 0x8000]
        cmp rbx, rdx
        jb .keep                ; the host bridge
        mov [rbx], eax
        mov [rbx], ecx          ; and back, where it can be written
.keep:  dec r15d
        jnz .config

        xor r14d, r14d          ; a device
device: imul ebx, r14d, BAR_BYTES
        add ebx, BAR
        imul esi, r14d, 0x8000
        mov word [rbp + rsi + 0x8004], 6
        mov dword [rbp + rsi + 0x8010], ebx
        mov byte [rbx + STATUS], 0
        mov byte [rbx + STATUS], 3
        mov dword [rbx + 8], 1
        mov dword [rbx + 12], 1
        mov dword [rbx + 8], 0
        call random
        and eax, 0x30000000     ; indirect descriptors, event index
        mov dword [rbx + 12], eax
        mov byte [rbx + STATUS], 11
        mov word [rbx + 22], 0
        mov word [rbx + 24], 16
        mov dword [rbx + 32], QUEUE
        mov dword [rbx + 36], 0
        mov dword [rbx + 40], QUEUE + 0x1000
        mov dword [rbx + 44], 0
        mov dword [rbx + 48], QUEUE + 0x2000
        mov dword [rbx + 52], 0
        call random
        test eax, 0x70000       ; now and then somewhere else
        jnz .here
        mov [rbx + 48], eax
        mov [rbx + 36], eax
.here:  mov word [rbx + 28], 1
        mov byte [rbx + STATUS], 15
        mov edi, QUEUE
        mov ecx, 16
.descriptor:
        call random
        and eax, 0x4fffff       ; below KEPT, some of it no RAM
        test r12d, 0x6000000
        jnz .low
        mov eax, r12d
.low:   mov [rdi], eax
        mov dword [rdi + 4], 0
        call random
        shr eax, 20
        mov [rdi + 8], eax
        call random
        and eax, 0x000f0007
        mov [rdi + 12], eax
        add edi, 16
        loop .descriptor
        mov edi, QUEUE + 0x1004
        mov ecx, 16
.ring:  call random
        shr eax, 27
        stosw
        loop .ring
        mov word [QUEUE + 0x1000], 0
        call random
        shr eax, 28
        mov [QUEUE + 0x1002], ax
        mov word [rbx + 0x3000], 0
        mov word [rbx + 0x3004], 1
        mov r15d, 20            ; and its registers
.registers:
        call random
        shr eax, 16
        and eax, 0x7ff8
        call write_register
        dec r15d
        jnz .registers
        inc r14d
        cmp r14d, DEVICES
        jb device
        dec r13d
        jnz round

        mov rsi, KEPT
        mov ecx, 512
        mov rbx, PATTERN
.compare:
        lodsq
        cmp rax, rbx
        jne failed
        loop .compare
        print token
        finish 0
failed: finish 1

; a 4-byte write of the next number to the device's register at eax
write_register:
        lea rcx, [rbx + rax]
        call random
        mov [rcx], eax
        mov eax, [rcx]
        ret

random: imul r12d, r12d, 1664525
        add r12d, 1013904223
        mov eax, r12d
        ret
token:  db "hostile: OK", 10, 0
        library
