// Android: set `package` on top of this file. Put @MODEL@, golden/ and snippets/labels.txt, with these paths, into the
// app's src/main/assets/model/; runtimes open files, so unpack these once:
//     fun unpack(assets: AssetManager, from: String, to: File) {
//         val inside = assets.list(from).orEmpty()
//         inside.forEach { unpack(assets, "$from/$it", File(to, it)) }
//         if (inside.isNotEmpty()) return
//         to.parentFile!!.mkdirs()
//         assets.open(from).use { file -> to.outputStream().use { file.copyTo(it) } }
//     }
//     val folder = File(context.filesDir, "model").also { unpack(context.assets, "model", it) }
// Then, in a background thread (withContext(Dispatchers.Default) { ... }):
//     checkGolden(folder)  // in a test on the device: true where the answer is as it was at export
//     val classifier = Classifier(File(folder, "@MODEL@"))  // once
//     val found = classifier.predict(prepare(argb, width, height, turn))  // a photo: see prepare
//     answer(folder, found)  // in words
