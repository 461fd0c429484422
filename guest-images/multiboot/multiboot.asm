; Multiboot 1: prints what the boot information says, for the test to check.
%include "common32.inc"
        org 0x200000
MAGIC   equ 0x1badb002
FLAGS   equ 0x10003             ; modules at pages, memory information, addresses below
header: dd MAGIC, FLAGS, -(MAGIC + FLAGS)
        dd header, header, 0, bss_end, start

start:  mov esp, STACK
        mov ebp, ebx
        cmp eax, 0x2badb002
        jne wrong
        say cmdline
        say [ebp + 16]
        say newline
        say loader
        say [ebp + 64]
        say newline
        say memory
        say_hex [ebp + 4]
        say_hex [ebp + 8]
        say newline
        mov edi, [ebp + 48]     ; the memory map, and behind it
        mov eax, [ebp + 44]
        add eax, edi
        mov [map_end], eax
        mov eax, edi            ; all in the page of the information
        xor eax, ebp
        and eax, ~0xfff
        jnz wrong
        mov eax, [map_end]
        dec eax
        xor eax, ebp
        and eax, ~0xfff
        jnz wrong
region: say map
        say_hex [edi + 4]
        say_hex [edi + 12]
        say_hex [edi + 20]
        say newline
        cmp dword [edi + 20], 1
        jne .used
        mov eax, ebp            ; is the information in what is free?
        sub eax, [edi + 4]
        jb .used
        cmp eax, [edi + 12]
        jb wrong
.used:  add edi, [edi]
        add edi, 4
        cmp edi, [map_end]
        jb region
        mov edi, [ebp + 24]     ; modules
        mov ecx, [ebp + 20]
        mov [left], ecx
        jecxz ready
each:   say module
        say [edi + 8]
        say colon
        mov eax, [edi]
        test eax, 0xfff
        jnz wrong
        mov ecx, [edi + 4]      ; its content
        sub ecx, eax
        mov esi, eax
        mov dx, COM1
        rep outsb
        say newline
        add edi, 16
        dec dword [left]
        jnz each
ready:  cmp dword [bss], 0
        jne wrong
        say token
        finish 0
wrong:  say failed
        finish 1

cmdline: db "cmdline ", 0
loader:  db "loader ", 0
memory:  db "memory ", 0
map:     db "map ", 0
module:  db "module ", 0
colon:   db ": ", 0
failed:  db "wrong", 10, 0
token:   db "multiboot: OK", 10, 0
left:    dd 0
map_end: dd 0
        library32
        align 16
bss     equ $
bss_end equ bss + 64
