; What an exit costs: 5,000 writes to port 0x80, and 5,000 reads of the host bridge's configuration space by ports and in memory. A
; line before each turn lets the host take the time.
%include "common.inc"
ECAM    equ 0xb0000000
ACCESSES   equ 5000
        mov edx, 0xcf8
        mov eax, 0x80000000
        out dx, eax
        print post
        mov ecx, ACCESSES
.post:  out POST, al
        dec ecx
        jnz .post
        print ports
        mov edx, 0xcfc
        mov ecx, ACCESSES
.ports: in eax, dx
        cmp eax, 0x29c08086
        jne .bad
        dec ecx
        jnz .ports
        print memory
        mov ebx, ECAM
        mov ecx, ACCESSES
.memory:
        mov eax, [rbx]
        cmp eax, 0x29c08086
        jne .bad
        dec ecx
        jnz .memory
        print token
        finish 0
.bad:   finish 1
post:   db "post", 10, 0
ports:  db "ports", 10, 0
memory: db "memory", 10, 0
token:  db "pcireads: OK", 10, 0
        library
