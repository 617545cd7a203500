#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mime.h"
static void js(const char*k,const char*p,size_t n,int last){printf("\"%s\":\"",k);for(size_t i=0;i<n;i++){unsigned char c=p[i];if(c=='"'||c=='\\')printf("\\%c",c);else if(c<32||c==127)printf("\\u%04x",c);else putchar(c);}printf("\"%s",last?"":",");}
int main(void){static char m[1<<26];size_t n=fread(m,1,sizeof m,stdin);static char from[4096],sub[70000];char*body=malloc(1<<26);struct mime_part p;struct mime_span h=mime_header(m,n),v;
*from=*sub=0;if(mime_field(h,"From",&v))mime_address(&v,from,sizeof from);for(char*c=from;*c;c++)if(*c>='A'&&*c<='Z')*c+=32;
size_t s=0;if(mime_field(h,"Subject",&v))s=mime_words(v,sub,sizeof sub);
mime_body(m,n,&p);size_t b=mime_text(&p,body,1<<26);printf("{");js("from",from,strlen(from),0);js("subject",sub,s,0);js("body",body,b,0);js("content_type",p.type,strlen(p.type),0);js("charset",p.charset,strlen(p.charset),1);printf("}\n");}
