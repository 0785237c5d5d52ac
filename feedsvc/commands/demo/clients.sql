-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
-- All comes from the bits of h and g, so the same seed gives the same couple in any order of work.
WITH words AS (
    SELECT ARRAY[  -- by eights: a language each, so that given and family names go together
        'Oliver','Amelia','George','Isla','Harry','Ava','Jack','Grace',
        'Siobhán','Pádraig','Niamh','Ciarán','Aoife','Seán','Róisín','Eoghan',
        'Jürgen','Anneliese','Björn','Käthe','Søren','Åse','Günther','Maja',
        'Zoë','François','Éloïse','Jean-Luc','Maëlys','Noël','Hélène','Benoît',
        'José','Lucía','Íñigo','María José','Begoña','Joaquín','Núria','Ximena',
        'Łukasz','Małgorzata','Šárka','Jiří','Żaneta','Ondřej','Živa','Đorđe',
        'Владимир','Анна','Наталія','Дмитро','Екатерина','Юлия','Сергей','Ірина',
        'محمد','فاطمة','يوسف','ليلى','أحمد','نور','خالد','مريم',
        'נועה','איתן','תמר','יונתן','שירה','דוד','רחל','אורי',
        '伟','芳','秀英','娜','敏','静','强','磊',
        '結衣','蓮','さくら','大翔','陽菜','健太','美咲','翔太',
        'Priya','आरव','Lakshmi','राहुल','Ananya','सीता','Arjun','தமிழ்',
        'Nguyệt','Đức','Thảo','Quỳnh','Tuấn','Hương','Phượng','Bảo',
        'Chidi','Adaobi','Kwame','Ngozi','Thabo','Zanele','Oluwaseun','Amara',
        'Ayşe','İbrahim','Çağla','Şükrü','Gül','Ömer','Işıl','Yiğit',
        'Mary-Ann','Jo','Dwayne "Rocky"','X Æ','Kealoha','Nāmaka','Ji-woo','서연'
    ] AS given, ARRAY[
        'Smith','Taylor','Fitzgerald','Featherstonehaugh','Brown','St. John','Patel','Clarke',
        'O''Brien','O''Connor','Ní Dhomhnaill','MacCarthy','D''Arcy','Ó Súilleabháin','Walsh','Byrne',
        'Müller','Weiß','Sjögren','Ångström','Østergård','von und zu Königsegg','Groß','Löfgren',
        'Lefèvre','d''Arc','Saint-Exupéry','Crête','L''Écuyer','Brûlé','Garçon','De La Fontaine',
        'García Márquez','Núñez','Ibáñez','de la Cruz','Peña','Muñoz y Rojas','Güell','Ordóñez',
        'Wałęsa','Dvořák','Čapek','Hrušková','Świątek','Žižka','Obradović','Kowalczyk',
        'Иванов','Шевченко','Толстая','Ковальчук','Ломоносова','Щербаков','Гоголь','Зеленко',
        'الحسن','المصري','حداد','النجار','خوري','السيد','منصور','عبد الله',
        'כהן','לוי','מזרחי','פרץ','ביטון','אברהם','פרידמן','שפירא',
        '王','李','张','刘','陈','杨','黄','欧阳',
        '佐藤','鈴木','高橋','田中','渡辺','伊藤','山本','小林',
        'Sharma','शर्मा','Iyer','वर्मा','Nair','गुप्ता','Singh','முருகன்',
        'Nguyễn','Trần','Lê','Phạm','Huỳnh','Võ','Đặng','Bùi',
        'Okonkwo','Adeyemi','Mensah','Nwosu','Dlamini','Nkosi','Ọlátúnjí','Diallo',
        'Yıldız','Öztürk','Çelik','Şahin','Güneş','Aydın','Kılıç','Doğan',
        'Lee, Jr.','Kāne','"Ace" Jones','A-12','Kamakawiwoʻole','Kahananui','Kim','박'
    ] AS family, ARRAY[
        'The "Old" Mill','O''Malley''s Barn','Rosewood Hall','Schloss Glücksburg',
        'Château de l''Île; jardin','Smith, Jones & Sons Hall','قصر الورد','גן האירועים','八芳園',
        'Hacienda San José','Villa Fiorita','The Orangery, Kew','Café Zoë','Kilshane House',
        'Pałac Wąsowo','Beach no. 7','Żywiec / "Pod Lipą"','Taj Falaknuma','Town hall','St Mary''s'
    ] AS venue, ARRAY[
        'sage and cream','dusty rose','navy; gold','"midnight" blue','terracotta','ivory','赤と白'
    ] AS colour, ARRAY[
        'Met at the spring fair; wants to hear about winter dates.',
        'Vegetarian menu, two guests with nut allergy.',
        'Prefers calls after 6 pm.',
        'Deposit paid by the bride''s mother.',
        'Asked for the "quiet" corner of the garden, away from the road.',
        'String quartet for the ceremony, DJ afterwards.',
        'Will send the guest list next week.',
        'Moved the date twice already, be patient.'
    ] AS sentence, ARRAY[  -- what breaks spreadsheets, CSV readers, terminals and event streams
        '=SUM(A1:A9)', '=cmd|'' /C calc''!A0', '@SUM(1+1)*cmd', '-2+3+cmd|'' /C calc''!A0', '+1+1',
        E'\tindented by a tab', E'\rcarriage return first', E'\n=1+1', '＝1+1', '＋1', '－1',
        '＠SUM(A1)', '-', '+44 20 7946 0958', '-12.50', E'first line\nsecond line',
        E'first line\r\nsecond line', 'say "yes", please; or "no"', 'a,b;c', '"', '''quoted''',
        '💍👰🏽‍♀️🤵🏿‍♂️ 🥂', 'ألف مبروك للعروسين (50%)', 'מזל טוב, "כלה וחתן"', 'ご結婚おめでとうございます。',
        E'Zoe\u0308 and Rene\u0301, combining', '', '  spaces around  ', 'NULL', '\N', '\.',
        'C:\temp\new "folder"\', E'bell \u0007 escape \u001b[31m delete \u007f',
        E'line\u2028paragraph\u2029next\u0085line', E'\ufeffbyte order mark first',
        E'\u202Eright-to-left override', E'data: forged\n\nevent: end\ndata: {}\n\n',
        '</script><script>alert(1)</script>', '{"looks": "like JSON"}', 'Z̴̡͝a̷l̸g̶o̵'
    ] AS peculiar
), couples AS (
    SELECT tenant, n, base + n AS id, hashint8extended(base + n, $5) AS h,
           hashint8extended(base + n, $5 # 4611686018427387904) AS g
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n
    OFFSET 0  -- a fence: otherwise each use of h would hash anew
), dated AS (
    SELECT *,
           timestamptz '2024-08-15 00:00+00' - CASE WHEN n % 7 = 0
               THEN (h >> 40 & 511) * interval '1 day'  -- many at one instant: ties for an order
               ELSE (h >> 20 & 67108863) * interval '1 second' + (g & 1048575) * interval '1 us'
           END AS created,
           CASE WHEN g >> 60 & 3 > 0
               THEN date '2023-06-03' + (g >> 44 & 2047)::int END AS day
    FROM couples
    OFFSET 0
)
INSERT INTO wedding.clients (
    id, tenant_id, reference, partner_one, partner_two, email, phone, venue, status, notes,
    wedding_date, guests, budget, preferences, created_at, updated_at
)
SELECT
    id, tenant, overlay(md5(id || ':' || $5) PLACING '4' FROM 13 FOR 1)::uuid,
    given[1 + (h & 127)] || ' ' || family[1 + (h & 120) + (h >> 7 & 7)],
    CASE WHEN h >> 10 & 15 = 0 THEN NULL WHEN h >> 10 & 63 = 17 THEN ''
         ELSE given[1 + (g & 127)] || ' ' || family[1 + (g & 120) + (g >> 7 & 7)] END,
    CASE WHEN g >> 10 & 15 = 0 THEN NULL WHEN g >> 10 & 63 = 17 THEN ''
         ELSE (ARRAY['hello', 'we.two', 'wedding+list', 'just_us'])[1 + (g >> 16 & 3)] || id
              || (ARRAY['@example.com', '@example.org', '@mail.example', '@bücher.example'])
                 [1 + (g >> 18 & 3)] END,
    CASE h >> 14 & 7
        WHEN 0 THEN NULL
        WHEN 1 THEN '+1 (212) 555-0' || 100 + (g >> 20 & 63)
        WHEN 2 THEN '+49 30 ' || 23125000 + (g >> 20 & 511)
        WHEN 3 THEN '0117 496 0' || 100 + (g >> 20 & 511)
        WHEN 4 THEN CASE WHEN g >> 20 & 15 = 0 THEN '' ELSE '+33 1 99 00 ' || 10 + (g & 63) END
        ELSE '+44 7700 900' || 100 + (g >> 20 & 511) END,
    CASE WHEN h >> 17 & 15 = 0 THEN NULL WHEN h >> 17 & 127 = 19 THEN ''
         ELSE venue[1 + (h >> 21 & 1023) % 20] END,
    CASE WHEN day IS NULL THEN 'enquiry'
         WHEN g >> 30 & 15 = 0 THEN 'cancelled'
         WHEN day < date '2025-06-01' THEN 'married'
         WHEN g >> 34 & 1 = 0 THEN 'booked'
         ELSE 'planning' END::wedding.client_status,
    CASE WHEN n % 160 BETWEEN 4 AND 43 THEN peculiar[n % 160 - 3]
         WHEN h >> 31 & 3 < 2 THEN NULL
         ELSE concat_ws(CASE WHEN h >> 33 & 7 = 0 THEN E'\n' ELSE ' ' END,
              sentence[1 + (h >> 36 & 7)], CASE WHEN h >> 50 & 3 = 0
              THEN sentence[1 + (h >> 40 & 7)] END) END,
    day,
    CASE WHEN h >> 43 & 3 > 0 THEN 8 + (h >> 45 & 255) END,
    CASE WHEN h >> 53 & 7 > 0 THEN (g >> 20 & 8388607) / 100.0 END,
    CASE WHEN h >> 56 & 1 = 1 THEN jsonb_build_object(
        'colours', colour[1 + (h >> 23 & 1023) % 7],
        'diet', jsonb_build_object('vegan', h >> 47 & 31)) END,
    created,
    created + (g >> 25 & 16777215) * interval '1.25 seconds'
FROM dated, words;
