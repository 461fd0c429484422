; Multiboot 2: prints what the boot information says, tag by tag, for the test to check.
%include "common32.inc"
        org 0x200000
MAGIC   equ 0xe85250d6
header: dd MAGIC, 0, header_end - header, -(MAGIC + header_end - header)
        dw 1, 0                 ; information wanted: command line, modules, map
        dd 20, 1, 3, 6
        align 8
        dw 2, 0                 ; addresses
        dd 24, header, header, 0, bss_end
        dw 3, 0                 ; entry
        dd 12, start
        align 8
        dw 5, 0                 ; a framebuffer, which there is not
        dd 20, 1024, 768, 32
        align 8
        dw 4711, 1              ; unknown, and optional
        dd 8
        dw 0, 0
        dd 8
header_end:

start:  mov esp, STACK
        cmp eax, 0x36d76289
        jne wrong
        test ebx, 7
        jnz wrong
        mov ebp, ebx
        mov eax, [ebp]
        add eax, ebp
        mov [end], eax
        lea edi, [ebp + 8]
tag:    cmp edi, [end]
        jae wrong               ; no end tag
        mov eax, [edi]
        test eax, eax
        jz ready
        cmp eax, 1
        je text
        cmp eax, 2
        je text
        cmp eax, 3
        je module
        cmp eax, 6
        je map
        say other
        say_hex [edi]
        say_hex [edi + 8]
        say newline
next:   mov eax, [edi + 4]
        add eax, edi
        add eax, 7
        and eax, ~7
        mov edi, eax
        jmp tag

text:   say line
        lea esi, [edi + 8]
        call print_string
        say newline
        jmp next

module: say modtext
        lea esi, [edi + 16]
        call print_string
        say colon
        mov esi, [edi + 8]
        mov ecx, [edi + 12]
        sub ecx, esi
        mov dx, COM1
        rep outsb
        say newline
        jmp next

map:    lea esi, [edi + 16]
        mov eax, [edi + 4]
        add eax, edi
        mov [map_end], eax
region: mov [entry], esi
        say maptext
        mov esi, [entry]
        say_hex [esi]
        say_hex [esi + 8]
        say_hex [esi + 16]
        say newline
        mov esi, [entry]
        cmp dword [esi + 16], 1
        jne .used
        mov eax, ebp            ; is the information in what is free?
        sub eax, [esi]
        jb .used
        cmp eax, [esi + 8]
        jb wrong
.used:  add esi, [edi + 8]
        cmp esi, [map_end]
        jb region
        jmp next

ready:  say token
        finish 0
wrong:  say failed
        finish 1

line:    db "text ", 0
other:   db "tag ", 0
maptext: db "map ", 0
modtext: db "module ", 0
colon:   db ": ", 0
failed:  db "wrong", 10, 0
token:   db "multiboot2: OK", 10, 0
end:     dd 0
map_end: dd 0
entry:   dd 0
        library32
        align 16
bss_end equ $ + 64
