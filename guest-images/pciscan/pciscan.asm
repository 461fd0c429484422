; Device 0 to 31 of each of 256 buses by ports, all functions of bus 0 in memory: one host bridge is found.
%include "common.inc"
ECAM    equ 0xb0000000
        xor r12d, r12d          ; found
        mov ebx, 0x80000000     ; enabled; bus, device and function from bit 8 on
.ports: mov edx, 0xcf8
        mov eax, ebx
        out dx, eax
        mov edx, 0xcfc
        in eax, dx
        cmp eax, 0xffffffff
        je .absent
        mov r13d, ebx
        inc r12d
.absent:
        add ebx, 0x800
        cmp ebx, 0x81000000
        jb .ports
        cmp r12d, 1
        jne .bad
        cmp r13d, 0x80000000
        jne .bad
        mov rbx, ECAM
        mov ecx, 256
.memory:
        mov eax, [rbx]
        cmp eax, 0xffffffff
        je .none
        inc r12d
.none:  mov dword [rbx + 4], 0
        add rbx, 0x1000
        dec ecx
        jnz .memory
        cmp r12d, 2
        jne .bad
        mov rbx, ECAM
        cmp dword [rbx], 0x29c08086
        jne .bad
        print token
        finish 0
.bad:   finish 1
token:  db "pciscan: OK", 10, 0
        library
